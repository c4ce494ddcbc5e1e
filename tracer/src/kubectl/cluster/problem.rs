//! Describes why a request failed, in one line, in the words of the server or proxy that refused it.

use std::{error::Error, io};

use http::StatusCode;
use kube::core::Status;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use x509_parser::{
    asn1_rs::{FromDer as _, Oid},
    objects::{oid_registry, oid2sn},
};

use crate::{
    error::chain,
    kubectl::{cluster::limits::Exceeded, text},
};

/// The reason of a failed request, as one line.
pub(in crate::kubectl) fn problem(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) => refusal(status),
        kube::Error::Service(error) => cause(&**error),
        error => cause(error),
    };
    text::line(&text)
}

/// The message of a status: of the API server, or of a proxy that responded in its place.
pub(in crate::kubectl) fn refusal(status: &Status) -> String {
    /// The reason that kube sets if the response is not a status.
    const NOT_A_STATUS: &str = "Failed to parse error data";
    let code =
        StatusCode::from_u16(status.code).map_or_else(|_| status.code.to_string(), |code| code.to_string());
    if status.reason == NOT_A_STATUS {
        return not_the_api_server(&code, &status.message);
    }
    let message = status.message.trim();
    if message.is_empty() {
        format!("the API server responded with {code} {}", status.reason)
    } else {
        message.to_owned()
    }
}

/// Describes a response that is not of an API server, such as the page of a proxy.
pub(in crate::kubectl) fn not_the_api_server(code: &str, text: &str) -> String {
    let text = without_tags(text);
    let detail = if text.is_empty() { String::new() } else { format!(": {text:.200}") };
    format!("{code}, from a proxy or another server in front of the API server{detail}")
}

/// The text of an HTML page, as one line.
fn without_tags(page: &str) -> String {
    let mut text = String::new();
    let mut within = false;
    for c in page.chars() {
        match c {
            '<' => within = true,
            '>' if within => {
                within = false;
                text.push(' ');
            }
            c if !within => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cause of an error that is not a response: a cause that is sufficient, or the whole chain.
pub(in crate::kubectl) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(text) = sufficient(error) {
            return text;
        }
        next = error.source();
    }
    chain(error)
}

/// The text of an error that needs no further context.
fn sufficient(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<Exceeded>() {
        return Some(error.to_string());
    }
    if let Some(error) = error.downcast_ref::<TlsError>() {
        return Some(tls(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // `source` skips the inner error.
        if let Some(inner) = error.get_ref() {
            return sufficient(inner);
        }
        return error.raw_os_error().map(|_| without_number(&error.to_string()));
    }
    match error.to_string().as_str() {
        // Errors of hyper-util, whose type is private.
        "tunnel error: unsuccessful" => Some("the proxy refused to connect to the API server".into()),
        "tunnel error: proxy authorization required" => {
            Some("the proxy requires a user name and a password: http://USER:PASSWORD@PROXY".into())
        }
        "tunnel error: unexpected end of file" => {
            Some("the proxy closed the connection without a response".into())
        }
        "SOCKS error: failed to create underlying connection" => {
            Some("cannot connect to the SOCKS proxy".into())
        }
        text => text.strip_prefix("SOCKS error: ").map(|text| format!("the SOCKS proxy refused: {text}")),
    }
}

/// Removes the error number that the standard library appends.
fn without_number(text: &str) -> String {
    text.split_once(" (os error").map_or(text, |(text, _)| text).to_owned()
}

/// Describes a TLS error.
fn tls(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity) => {
            "the server accepts none of the supported cipher suites: those of TLS 1.3 and, of TLS 1.2, ECDHE with \
             AES-GCM or ChaCha20-Poly1305. Suites with CBC or with RSA key exchange are not supported"
                .into()
        }
        TlsError::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server supports neither TLS 1.2 nor TLS 1.3".into()
        }
        TlsError::AlertReceived(
            alert @ (AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError),
        ) => format!("the server refused the client certificate, or requires one ({alert:?})"),
        TlsError::InvalidMessage(_) => "the server does not use TLS: is its address http://?".into(),
        error => format!("TLS: {error}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by an unknown authority: neither its issuer nor the certificate itself is in \
             certificate-authority"
                .into()
        }
        CertificateError::BadSignature => {
            "the server's certificate is signed by an unknown authority: one of the same name, with another key, is in \
             certificate-authority"
                .into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is the clock right?".into()
        }
        CertificateError::NotValidForName => "the server's certificate is for another name (--tls-server-name)".into(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is for {}, not for {} (--tls-server-name)",
            presented.iter().map(|name| presented_name(name)).collect::<Vec<_>>().join(", "),
            expected.to_str()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers".into()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => format!(
            "a certificate of the server is signed with {}, which is not supported",
            algorithm(signature_algorithm_id)
        ),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        } => format!(
            "a certificate of the server is signed with {} by a key of type {}, which is not supported",
            algorithm(signature_algorithm_id),
            algorithm(public_key_algorithm_id)
        ),
        error => format!("the server's certificate: {error}"),
    }
}

/// The name within webpki's `DnsName("x")` or `IpAddress(x)`.
fn presented_name(described: &str) -> &str {
    let within = described.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    within.unwrap_or(described).trim_matches('"')
}

/// The name of an algorithm, from the contents of an `AlgorithmIdentifier` (RFC 5280, section 4.1.1.2).
fn algorithm(identifier: &[u8]) -> String {
    let Ok((_, oid)) = Oid::from_der(identifier) else { return "an unknown algorithm".into() };
    oid2sn(&oid, oid_registry()).map_or_else(|_| format!("algorithm {oid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn api(status: serde_json::Value) -> String {
        let status: Status = serde_json::from_value(status).unwrap();
        problem(&kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn messages_of_the_server_are_one_line_of_bounded_length() {
        let text = api(json!({"message": "no\n\ttracer: ready\r\n", "code": 403, "reason": "Forbidden"}));
        assert_eq!(text, "no tracer: ready");
        assert!(api(json!({"message": "x".repeat(1 << 20), "code": 400})).len() < 4096);
        assert_eq!(
            api(json!({"code": 503, "reason": "Unavailable"})),
            "the API server responded with 503 Service Unavailable Unavailable"
        );
    }

    #[test]
    fn pages_of_proxies_are_recognized() {
        let page = "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>nginx</body></html>";
        let text = api(json!({"message": page, "code": 502, "reason": "Failed to parse error data"}));
        assert_eq!(
            text,
            "502 Bad Gateway, from a proxy or another server in front of the API server: 502 Bad Gateway nginx"
        );
    }

    #[test]
    fn causes_are_listed_once_and_without_numbers() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(cause(&refused), "Connection refused");
        let wrapped = anyhow::Error::new(refused).context("connecting");
        let wrapped: Box<dyn Error + Send + Sync> = wrapped.into();
        assert_eq!(cause(&*wrapped), "Connection refused");
        let nested = anyhow::anyhow!("b").context("a: b").context("c");
        let nested: Box<dyn Error + Send + Sync> = nested.into();
        assert_eq!(cause(&*nested), "c: a: b");
    }

    #[test]
    fn algorithms_are_named() {
        let context = |oid: &[u64]| {
            let oid = Oid::from(oid).unwrap();
            let signature_algorithm_id =
                [&[6, u8::try_from(oid.as_bytes().len()).unwrap()], oid.as_bytes()].concat();
            let error = CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id,
                supported_algorithms: Vec::new(),
            };
            cause(&io::Error::new(io::ErrorKind::InvalidData, TlsError::from(error)))
        };
        assert!(context(&[1, 2, 840, 113_549, 1, 1, 5]).contains("sha1WithRSAEncryption"));
        assert!(context(&[1, 2, 3, 4]).contains("1.2.3.4"));
    }
}
