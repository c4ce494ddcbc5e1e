//! Verifies the API server's certificate. Trusts what Go's `crypto/x509` trusts for kubectl, as far as rustls supports it
//! (<https://github.com/golang/go/blob/go1.26.0/src/crypto/x509/verify.go>, `Verify`).

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tracing::{debug, warn};
use x509_parser::{prelude::FromDer as _, time::ASN1Time};

/// After how long a certificate file is read again: that of a pod is replaced while it runs.
const FRESH: Duration = Duration::from_mins(1);

/// Where the trusted certificates come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The system's root certificates: Go's default.
    System,
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Pem(Vec<u8>),
    /// No verification (`insecure-skip-tls-verify`).
    Skip,
}

/// Verifies against the certificates of a [`Source`].
#[derive(Debug)]
pub(super) struct Authority {
    source: Source,
    provider: Arc<CryptoProvider>,
    /// None without verification.
    trusted: Mutex<Option<(Arc<Trusted>, Instant)>>,
}

/// Trusted certificates.
#[derive(Debug)]
struct Trusted {
    /// Verifies against them as authorities.
    authorities: Arc<WebPkiServerVerifier>,
    /// A server that presents one of them is trusted, whoever signed it, as in Go.
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Reads the certificates.
    pub(super) fn new(source: Source, provider: Arc<CryptoProvider>) -> Result<Self> {
        let authority = Self { source, provider, trusted: Mutex::default() };
        if !matches!(authority.source, Source::Skip) {
            let trusted = Arc::new(authority.read()?);
            *authority.trusted.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((trusted, Instant::now()));
        }
        Ok(authority)
    }

    fn read(&self) -> Result<Trusted> {
        let parse = |pem: &[u8]| -> Result<Vec<_>> {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            Ok(certificates?)
        };
        let (place, certificates) = match &self.source {
            Source::System => {
                let found = rustls_native_certs::load_native_certs();
                for error in found.errors {
                    debug!("reading the system's root certificates: {error}");
                }
                ("the system's root certificates".to_owned(), found.certs)
            }
            Source::File(path) => {
                let place = format!("the certificate authority {}", path.display());
                let pem = fs::read(path).with_context(|| format!("cannot read {place}"))?;
                let certificates = parse(&pem).with_context(|| format!("{place} is not valid PEM"))?;
                (place, certificates)
            }
            Source::Pem(pem) => {
                let place = "certificate-authority-data of the kubeconfig".to_owned();
                let certificates = parse(pem).with_context(|| format!("{place} is not valid PEM"))?;
                (place, certificates)
            }
            Source::Skip => (String::new(), Vec::new()),
        };
        ensure!(!certificates.is_empty(), "no certificate in {place}");
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if ignored > 0 {
            debug!("cannot read {ignored} certificates in {place}");
        }
        ensure!(added > 0, "cannot read any certificate in {place}");
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        Ok(Trusted { authorities: authorities.context("preparing to verify the server")?, certificates })
    }

    /// The certificates that are trusted now. A file is read again from time to time; if that fails, the previous
    /// certificates stay trusted.
    fn trusted(&self) -> Option<Arc<Trusted>> {
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, read) = trusted.as_mut()?;
        if matches!(self.source, Source::File(_)) && read.elapsed() >= FRESH {
            *read = Instant::now();
            match self.read() {
                Ok(fresh) => *known = Arc::new(fresh),
                Err(error) => warn!("{error:#}; the certificates read before are still used"),
            }
        }
        Some(Arc::clone(known))
    }
}

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = self.trusted() else { return Ok(ServerCertVerified::assertion()) };
        if trusted.certificates.contains(end_entity) {
            return verify_pinned(end_entity, server_name, now);
        }
        trusted.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies everything but the signature of a certificate that is trusted itself.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let time = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let time = ASN1Time::from_timestamp(time).map_err(|_| bad())?;
    if time < parsed.validity.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if time > parsed.validity.not_after {
        return Err(CertificateError::Expired.into());
    }
    let usage = parsed.extended_key_usage().map_err(|_| bad())?;
    if usage.is_some_and(|usage| !usage.value.any && !usage.value.server_auth) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        SignatureAlgorithm,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_001));

    fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).unwrap()
    }

    fn authority(pem: &str) -> Result<Authority> {
        Authority::new(Source::Pem(pem.as_bytes().to_vec()), Arc::new(aws_lc_rs::default_provider()))
    }

    fn verify(
        authority: &Authority,
        certificate: &CertificateDer<'_>,
        name: &str,
        now: UnixTime,
    ) -> Result<(), Error> {
        let name = ServerName::try_from(name).unwrap();
        authority.verify_server_cert(certificate, &[], &name, &[], now).map(drop)
    }

    fn authority_params() -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    #[test]
    fn key_types_that_go_accepts_are_trusted() {
        for algorithm in
            [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512, &PKCS_ED25519]
        {
            let issuer_key = key(algorithm);
            let root = authority_params().self_signed(&issuer_key).unwrap();
            let issuer = Issuer::new(authority_params(), issuer_key);
            let server = CertificateParams::new(["api".to_owned()]).unwrap();
            let server = server.signed_by(&key(algorithm), &issuer).unwrap();
            let authority = authority(&root.pem()).unwrap();
            verify(&authority, server.der(), "api", NOW).unwrap();
            assert!(verify(&authority, server.der(), "other", NOW).is_err());
        }
    }

    /// Created with OpenSSL, since rcgen cannot: a CA with a P-256 key that signs with SHA-512, and a server.
    #[test]
    fn an_authority_with_a_p256_key_that_signs_with_sha512_is_trusted() {
        const ROOT: &str = include_str!("testdata/p256-sha512-ca.pem");
        const SERVER: &str = include_str!("testdata/p256-sha512-server.pem");
        let server = CertificateDer::from_pem_slice(SERVER.as_bytes()).unwrap();
        verify(&authority(ROOT).unwrap(), &server, "api.example", NOW).unwrap();
    }

    #[test]
    fn a_pinned_server_certificate_is_trusted_whoever_signed_it() {
        let issuer = Issuer::new(authority_params(), key(&PKCS_ECDSA_P256_SHA256));
        let params = |usage: &[ExtendedKeyUsagePurpose]| {
            let mut params = CertificateParams::new(["api".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
            params.extended_key_usages = usage.to_vec();
            params
        };
        let signed = params(&[ExtendedKeyUsagePurpose::ServerAuth]);
        let signed = signed.signed_by(&key(&PKCS_ECDSA_P256_SHA256), &issuer).unwrap();
        let pinned = authority(&signed.pem()).unwrap();
        verify(&pinned, signed.der(), "api", NOW).unwrap();
        let refused = |name: &str, secs: u64| {
            verify(&pinned, signed.der(), name, UnixTime::since_unix_epoch(Duration::from_secs(secs)))
                .unwrap_err()
        };
        assert!(matches!(refused("other", 1_800_000_001), Error::InvalidCertificate(_)));
        assert_eq!(refused("api", 1_700_000_000), CertificateError::NotValidYet.into());
        assert_eq!(refused("api", 1_900_000_000), CertificateError::Expired.into());
        // Another certificate of the same issuer is not.
        let other = params(&[]).signed_by(&key(&PKCS_ECDSA_P256_SHA256), &issuer).unwrap();
        assert!(verify(&pinned, other.der(), "api", NOW).is_err());
        let client = params(&[ExtendedKeyUsagePurpose::ClientAuth]);
        let client = client.signed_by(&key(&PKCS_ECDSA_P256_SHA256), &issuer).unwrap();
        let pinned = authority(&client.pem()).unwrap();
        assert_eq!(
            verify(&pinned, client.der(), "api", NOW).unwrap_err(),
            CertificateError::InvalidPurpose.into()
        );
        // A certificate that is an authority itself.
        let own_key = key(&PKCS_ECDSA_P256_SHA256);
        let mut own = params(&[]);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = own.self_signed(&own_key).unwrap();
        verify(&authority(&own.pem()).unwrap(), own.der(), "api", NOW).unwrap();
    }

    #[test]
    fn input_without_a_certificate_is_rejected() {
        assert!(
            authority("").unwrap_err().to_string().contains("no certificate in certificate-authority-data")
        );
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(authority(rubbish).unwrap_err().to_string().contains("cannot read any certificate"));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let missing = Authority::new(Source::File("/missing".into()), provider).unwrap_err();
        assert!(missing.to_string().contains("/missing"));
    }

    #[test]
    fn any_certificate_is_accepted_without_verification() {
        let authority = Authority::new(Source::Skip, Arc::new(aws_lc_rs::default_provider())).unwrap();
        let own =
            CertificateParams::new(["api".to_owned()]).unwrap().self_signed(&key(&PKCS_ED25519)).unwrap();
        verify(&authority, own.der(), "other", NOW).unwrap();
    }
}
