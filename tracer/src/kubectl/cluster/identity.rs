//! The user's client certificate. A credential plugin may replace it while connections are made.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result, bail};
use rustls::{
    Error, InconsistentKeys, SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// The certificate that new connections authenticate with.
#[derive(Debug, Default)]
pub(super) struct Identity(RwLock<Option<Arc<CertifiedKey>>>);

impl Identity {
    /// Replaces it, for future connections.
    pub(super) fn set(&self, identity: Option<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

/// Parses a certificate with its chain, and its key, both in PEM.
pub(super) fn parse(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.context("the client certificate is not valid PEM")?;
    if chain.is_empty() {
        bail!("no certificate in the client certificate");
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        let is_encrypted = String::from_utf8_lossy(key).contains("ENCRYPTED");
        let text = if is_encrypted {
            "the client key is encrypted: neither kubectl nor tracer decrypts it".to_owned()
        } else {
            format!("no private key in the client key: {error}")
        };
        anyhow::Error::msg(text)
    })?;
    let key = provider.key_provider.load_private_key(key);
    let key =
        key.context("unsupported type of client key: use RSA, ECDSA (P-256, P-384, P-521) or Ed25519")?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        // If they cannot be compared, the server decides.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(identity)),
        Err(_) => bail!("the client key does not belong to the client certificate"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
        PKCS_ED25519,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(["alice".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn parsed(certificate: &str, key: &str) -> Result<Arc<CertifiedKey>> {
        parse(certificate.as_bytes(), key.as_bytes(), &aws_lc_rs::default_provider())
    }

    #[test]
    fn key_types_that_go_accepts_are_accepted() {
        for algorithm in
            [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512, &PKCS_ED25519]
        {
            let (certificate, key) = pair(algorithm);
            let identity = Identity::default();
            assert!(!identity.has_certs());
            identity.set(Some(parsed(&certificate, &key).unwrap()));
            assert!(identity.resolve(&[], &[]).is_some());
        }
    }

    #[test]
    fn problems_of_keys_are_reported() {
        let (certificate, key) = pair(&PKCS_ECDSA_P256_SHA256);
        let (_, other) = pair(&PKCS_ECDSA_P256_SHA256);
        let refused = |certificate: &str, key: &str| format!("{:#}", parsed(certificate, key).unwrap_err());
        assert!(refused(&certificate, &other).contains("does not belong"));
        assert!(refused("", &key).contains("no certificate"));
        assert!(refused(&certificate, "").contains("no private key"));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(refused(&certificate, &encrypted).contains("encrypted"));
    }
}
