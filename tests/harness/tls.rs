//! TLS before a server that has none, with certificates of one's own.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::loopback::Port;

/// A certificate that nobody else has signed, with its key.
pub struct Identity(CertifiedKey<KeyPair>);

impl Identity {
    /// Of this name.
    pub fn new(name: &str) -> Self {
        Self(generate_simple_self_signed([name.to_owned()]).expect("a certificate"))
    }

    /// The certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.0.cert.pem()
    }

    /// Its key, in PEM.
    pub fn key(&self) -> String {
        self.0.signing_key.serialize_pem()
    }
}

/// A port of the loopback interface whose connections are those of another one, over TLS. It ends when dropped.
pub struct Tls {
    port: Port,
    certificate: String,
}

impl Tls {
    /// Before the server at `behind`. With `client`, only for whoever has that certificate.
    pub fn before(behind: SocketAddr, client: Option<&Identity>) -> Self {
        let identity = Identity::new("127.0.0.1");
        let certificate = identity.certificate();
        let CertifiedKey { cert, signing_key } = identity.0;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them");
        let config = match client {
            None => config.with_no_client_auth(),
            Some(Identity(known)) => {
                let mut roots = RootCertStore::empty();
                roots.add(known.cert.der().clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                config.with_client_cert_verifier(verifier.expect("there is one to verify with"))
            }
        };
        let config = config.with_single_cert(vec![cert.der().clone()], key).expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = Port::serve(async move |listener| serve(&listener, &acceptor, behind).await);
        Self { port, certificate }
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its address, as a kubeconfig has it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
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
