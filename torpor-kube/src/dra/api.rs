//! The API server: claims are read there, and devices published.

use crate::reason::reason;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Client, Config};

/// Who publishes.
const FIELD_MANAGER: &str = "torpor-kube";

/// What the API server does not do, for people.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is none to ask.
    #[error("no API server is known: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Unknown(String),
    /// It refuses, or is not there.
    #[error("the API server does not {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it says.
        reason: String,
    },
    /// There is no such claim.
    #[error("there is no claim {namespace}/{name}")]
    NoClaim {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A connection to the API server.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// That of `$KUBECONFIG`, or of the cluster in a pod of which this runs.
    ///
    /// # Errors
    /// [`ApiError::Unknown`].
    pub async fn infer() -> Result<Self, ApiError> {
        let config = Config::infer().await.map_err(|error| ApiError::Unknown(reason(&error)))?;
        let client = Client::try_from(config).map_err(|error| ApiError::Unknown(reason(&error)))?;
        Ok(Self { client })
    }

    /// A claim, by names that were checked.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<ResourceClaim, ApiError> {
        let claims = kube::Api::<ResourceClaim>::namespaced(self.client.clone(), namespace);
        let found = claims
            .get_opt(name)
            .await
            .map_err(|error| refused(format!("give the claim {namespace}/{name}"), &error))?;
        found.ok_or_else(|| ApiError::NoClaim { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Who owns what is published for a node, so that it goes with the node.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn owner(&self, node: &str) -> Result<OwnerReference, ApiError> {
        let nodes = kube::Api::<Node>::all(self.client.clone());
        let node = nodes.get(node).await.map_err(|error| refused(format!("give the node {node}"), &error))?;
        Ok(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.metadata.name.unwrap_or_default(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        })
    }

    /// What is published.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn slice(&self, name: &str) -> Result<Option<ResourceSlice>, ApiError> {
        let slices = kube::Api::<ResourceSlice>::all(self.client.clone());
        slices.get_opt(name).await.map_err(|error| refused(format!("give the ResourceSlice {name}"), &error))
    }

    /// Publishes in place of what was published. Gives what the API server has kept of it.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn publish(&self, slice: &ResourceSlice) -> Result<ResourceSlice, ApiError> {
        let slices = kube::Api::<ResourceSlice>::all(self.client.clone());
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let how = PatchParams::apply(FIELD_MANAGER).force();
        let kept = slices.patch(name, &how, &Patch::Apply(slice)).await;
        kept.map_err(|error| refused(format!("take the ResourceSlice {name}"), &error))
    }
}

fn refused(what: String, error: &kube::Error) -> ApiError {
    ApiError::Refused { what, reason: reason(error) }
}
