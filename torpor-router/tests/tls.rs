//! TLS of the front, and its keys: both follow their files without a restart.

mod support;

use rcgen::generate_simple_self_signed;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use support::Router;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use torpor_router::client::{ClientError, ask as ask_router, connector, function_uri};

/// Puts a new certificate and its key into a folder.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    // The key first: together they belong only when both are there.
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// The answer to whoever trusts this certificate alone; empty if the front has another.
fn ask(router: &Router, trusted: &CertificateDer<'static>, headers: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(router.address).unwrap());
    let request = format!(
        "POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: 2\r\n\r\nhi"
    );
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).is_ok() {
        // A connection that breaks off has said what it said.
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// The status of an answer to the client that the command line uses, which trusts a file.
fn client(router: &Router, trusted: &Path) -> Result<u16, ClientError> {
    let url = format!("https://localhost:{}", router.address.port());
    let request = hyper::Request::post(function_uri(&url, "echo", "invoke")?).body("hi".into()).unwrap();
    let asked = async { ask_router(connector(&url, Some(trusted))?, request).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(asked).map(|answer| answer.status().as_u16())
}

#[test]
fn the_command_line_s_client_trusts_whom_it_is_told_to() {
    let (folder, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(folder.path());
    certify(others.path());
    let file = |name: &str| folder.path().join(name);
    let router = Router::start(&format!(
        "[server]\ntls_cert = {:?}\ntls_key = {:?}\n[functions.echo]\ncommand = ENDPOINT\n",
        file("cert.pem"),
        file("key.pem")
    ));
    assert_eq!(client(&router, &file("cert.pem")).unwrap(), 200);
    let stranger = client(&router, &others.path().join("cert.pem")).unwrap_err();
    assert!(matches!(stranger, ClientError::Untrusted { .. }), "{stranger:?}");
    assert!(stranger.to_string().contains("--cacert FILE"), "{stranger}");
    let none = client(&router, &file("key.pem")).unwrap_err();
    assert!(none.to_string().contains("no certificate is in it"), "{none}");
}

#[test]
fn the_front_speaks_tls_and_follows_its_certificate_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    fs::write(folder.path().join("keys"), "secret\n").unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let settings = format!(
        "[server]\ntls_cert = \"{}\"\ntls_key = \"{}\"\napi_keys_file = \"{}\"\n[functions.echo]\ncommand = ENDPOINT\n",
        file("cert.pem"),
        file("key.pem"),
        file("keys")
    );
    let router = Router::start(&settings);
    let key = "authorization: Bearer secret\r\n";
    let answer = ask(&router, &first, key);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hi"), "{answer}");
    assert!(ask(&router, &first, "").starts_with("HTTP/1.1 401"));
    let plain = router.post("/v1/functions/echo/invoke", &[("authorization", "Bearer secret")], "hi");
    assert_ne!(plain.status, 200, "{plain:?}");
    let stranger = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.der().clone();
    assert_eq!(ask(&router, &stranger, key), "");
    let second = certify(folder.path());
    router
        .eventually("it has the new certificate", || ask(&router, &second, key).starts_with("HTTP/1.1 200"));
    fs::write(folder.path().join("keys"), "another secret\n").unwrap();
    router.eventually("it has the new key", || ask(&router, &second, key).starts_with("HTTP/1.1 401"));
    let (_silent, answer) = (
        TcpStream::connect(router.address).unwrap(),
        ask(&router, &second, "authorization: Bearer another secret\r\n"),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "who says nothing keeps nobody out: {answer}");
}
