//! The kubelet's protocols, from the published field numbers (`k8s.io/kubelet/pkg/apis`).

#![expect(missing_docs, clippy::all, reason = "generated from proto/, where each field is described")]

/// Device plugins, `v1beta1`.
pub mod device_plugin {
    tonic::include_proto!("v1beta1");
}

/// How plugins are found.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// Dynamic resource allocation.
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// Devices' health and containers' devices.
pub mod v1 {
    tonic::include_proto!("v1");
}

/// Devices' health, for kubelets before 1.37.
pub mod v1alpha1 {
    tonic::include_proto!("v1alpha1");
}
