//! TLS before a server that has none, with a certificate of its own authority.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::loopback::Port;

/// A port of the loopback interface whose connections are those of another one, over TLS. It ends when dropped.
pub struct Tls {
    port: Port,
    certificate: String,
}

impl Tls {
    /// Before the server at `behind`.
    pub fn before(behind: SocketAddr) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = Port::serve(async move |listener| serve(&listener, &acceptor, behind).await);
        Self { port, certificate: cert.pem() }
    }

    /// Its address, as a kubeconfig has it.
    pub fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }
}

async fn serve(listener: &TcpListener, acceptor: &TlsAcceptor, behind: SocketAddr) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Whoever does not trust the certificate goes.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut server = TcpStream::connect(behind).await.expect("the server listens");
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        });
    }
}
