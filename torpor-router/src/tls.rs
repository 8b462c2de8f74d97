//! TLS of the front: the certificate and the key that the settings name.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads a chain of certificates (PEM, the front's own first) and its key.
///
/// # Errors
/// They cannot be read, are no PEM, or do not belong together.
pub fn acceptor(paths: &[PathBuf]) -> io::Result<TlsAcceptor> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{what}: {error}"));
    let [chain, key] = paths else { return Err(io::Error::other("a certificate and a key are needed")) };
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| wrong("no certificate", &error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("no private key", &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(|error| wrong("they do not belong together", &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
