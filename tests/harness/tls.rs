//! A TLS server in front of a server without TLS, with self-signed certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::loopback::Port;

/// A self-signed certificate with its key.
pub struct Identity(CertifiedKey<KeyPair>);

impl Identity {
    /// For a name, with a P-256 key.
    pub fn new(name: &str) -> Self {
        Self::with_key(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// For a name, with a key of this type.
    pub fn with_key(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let signing_key = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let cert = params.self_signed(&signing_key).expect("a certificate");
        Self(CertifiedKey { cert, signing_key })
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

/// A TLS server on the loopback interface that forwards to another server. It stops when dropped.
pub struct Tls {
    port: Port,
    certificate: String,
}

impl Tls {
    /// In front of the server at `behind`. With `client`, that client certificate is required.
    pub fn before(behind: SocketAddr, client: Option<&Identity>) -> Self {
        Self::with_identity(behind, Identity::new("127.0.0.1"), client)
    }

    /// The same, with this certificate.
    pub fn with_identity(behind: SocketAddr, identity: Identity, client: Option<&Identity>) -> Self {
        let certificate = identity.certificate();
        let CertifiedKey { cert, signing_key } = identity.0;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(aws_lc_rs::default_provider());
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

    /// Its address.
    pub const fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its URL.
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
            // A client that does not trust the certificate disconnects.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut server = TcpStream::connect(behind).await.expect("the server listens");
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        });
    }
}
