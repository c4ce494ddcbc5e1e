//! The HTTP client: proxies, TLS, and the layers of each request.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::Uri;
use hyper::rt::{Read, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{
            Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
    },
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, retry::RetryPolicy},
    config::{AuthInfo, Cluster},
};
use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};
use secrecy::{ExposeSecret as _, SecretString};
use tower::{BoxError, Service, ServiceBuilder, retry::RetryLayer};
use tracing::warn;

use crate::kubectl::{
    cluster::{
        authority::{Authority, Source as Certificates},
        authorize::{Authorize, Source as Credentials},
        identity,
        identity::Identity,
        kubeconfig::{Access, filled},
        limits::Limits,
        plugin::Plugin,
        proxy::Proxy,
    },
    warnings::Warnings,
};

/// How long connecting may take, as for kubectl.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// After how long without traffic a connection is probed, as for kubectl.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Prepares a client; nothing is sent yet.
pub(super) fn client(
    access: Access,
    server: &Uri,
    proxy: Option<Proxy>,
    timeout: Duration,
) -> Result<Client> {
    let Access { cluster, mut user, user_name, namespace } = access;
    if server.scheme_str() == Some("http") {
        warn_of_unsent_credentials(&user);
        user = AuthInfo {
            impersonate: user.impersonate,
            impersonate_uid: user.impersonate_uid,
            impersonate_groups: user.impersonate_groups,
            impersonate_user_extra: user.impersonate_user_extra,
            ..AuthInfo::default()
        };
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = Arc::new(Identity::default());
    identity.set(client_identity(&user, &provider).with_context(|| format!("user {user_name:?}"))?);
    let plugin = user.exec.take().map(|config| Plugin::new(config, &cluster, &user_name)).transpose()?;
    let plugin = plugin.map(|plugin| {
        Authorize(Arc::new(Credentials::new(plugin, Arc::clone(&identity), Arc::clone(&provider))))
    });
    let tls = tls(&cluster, identity, provider)?;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector.set_nodelay(true);
    let settings = Settings { server, cluster: &cluster, user, namespace, timeout, plugin };
    match proxy {
        None => settings.over(connector, tls),
        Some(Proxy::Socks { url, user }) => {
            let mut tunnel = SocksV5::new(url, connector);
            if let Some((name, password)) = user {
                tunnel = tunnel.with_auth(name, password);
            }
            settings.over(tunnel, tls)
        }
        Some(Proxy::Http { url, authorization }) => {
            // The certificate of a proxy is verified as that of the server, as kubectl does.
            let https =
                HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
            let mut tunnel = Tunnel::new(url, https.wrap_connector(connector));
            if let Some(authorization) = authorization {
                tunnel = tunnel.with_auth(authorization);
            }
            settings.over(tunnel, tls)
        }
    }
}

/// The settings of a client that do not depend on the connector.
struct Settings<'a> {
    server: &'a Uri,
    cluster: &'a Cluster,
    user: AuthInfo,
    namespace: String,
    timeout: Duration,
    plugin: Option<Authorize>,
}

impl Settings<'_> {
    fn over<C>(self, connector: C, tls: ClientConfig) -> Result<Client>
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Connection + Read + Write + Send + Unpin + 'static,
        C::Future: Send + 'static,
        C::Error: Into<BoxError>,
    {
        let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = filled(self.cluster.tls_server_name.as_deref()) {
            let parsed = name
                .to_owned()
                .try_into()
                .with_context(|| format!("tls-server-name {name:?} is not a valid name"))?;
            https = https.with_server_name_resolver(FixedServerNameResolver::new(parsed));
        }
        let https = https.enable_http1().wrap_connector(connector);
        let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
        let mut config = Config::new(self.server.clone());
        config.auth_info = self.user;
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .layer(RetryLayer::new(RetryPolicy::server_retry()))
            .option_layer(self.plugin)
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .layer(Warnings::default())
            // Inside of the authorization: a plugin may wait for the user.
            .layer(Limits { timeout: self.timeout })
            .map_err(BoxError::from)
            .service(http);
        Ok(Client::new(service, self.namespace))
    }
}

/// Credentials are sent over TLS only, as in Go.
fn warn_of_unsent_credentials(user: &AuthInfo) {
    let has_any = user.token.is_some()
        || user.token_file.is_some()
        || user.exec.is_some()
        || user.username.is_some()
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some();
    if has_any {
        warn!(
            "the server's address begins with http://: no credentials are sent, since they would be readable"
        );
    }
}

/// The TLS configuration.
fn tls(cluster: &Cluster, identity: Arc<Identity>, provider: Arc<CryptoProvider>) -> Result<ClientConfig> {
    let certificates = if cluster.insecure_skip_tls_verify == Some(true) {
        Certificates::Skip
    } else if let Some(data) = filled(cluster.certificate_authority_data.as_deref()) {
        Certificates::Pem(decode(data, "certificate-authority-data")?)
    } else if let Some(file) = filled(cluster.certificate_authority.as_deref()) {
        Certificates::File(file.into())
    } else {
        Certificates::System
    };
    let authority = Authority::new(certificates, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(authority))
        .with_client_cert_resolver(identity))
}

/// The user's client certificate, with its key.
fn client_identity(
    user: &AuthInfo,
    provider: &CryptoProvider,
) -> Result<Option<Arc<rustls::sign::CertifiedKey>>> {
    let key_data = user.client_key_data.as_ref().map(SecretString::expose_secret);
    let certificate = read(
        "client-certificate",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
    )?;
    let key = read("client-key", key_data, user.client_key.as_deref())?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => identity::parse(&certificate, &key, provider).map(Some),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("client-certificate is given without client-key"),
        (None, Some(_)) => bail!("client-key is given without client-certificate"),
    }
}

/// A value that the kubeconfig has inline or in a file.
fn read(name: &str, data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>> {
    if let Some(data) = filled(data) {
        return decode(data, &format!("{name}-data")).map(Some);
    }
    let Some(file) = filled(file) else { return Ok(None) };
    std::fs::read(file).with_context(|| format!("cannot read {name} {file:?}")).map(Some)
}

fn decode(data: &str, name: &str) -> Result<Vec<u8>> {
    // Go accepts newlines within.
    let data: String = data.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(data).with_context(|| format!("{name} of the kubeconfig is not base64"))
}

/// The server's address, with kubectl's default scheme (client-go, `rest/url_utils.go`: `DefaultServerURL`).
pub(super) fn server_url(access: &Access) -> Result<Uri> {
    let Access { cluster, user, .. } = access;
    let given = cluster.server.as_deref().unwrap_or_default().trim_end_matches('/');
    ensure!(!given.is_empty(), "the kubeconfig's cluster has no server");
    let has_tls = cluster.certificate_authority.is_some()
        || cluster.certificate_authority_data.is_some()
        || cluster.insecure_skip_tls_verify == Some(true)
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some();
    let url = match given {
        _ if given.contains("://") => given.to_owned(),
        _ if has_tls => format!("https://{given}"),
        _ => format!("http://{given}"),
    };
    let parsed: Uri = url.parse().with_context(|| format!("the server {given:?} is not a URL"))?;
    ensure!(
        matches!(parsed.scheme_str(), Some("https" | "http")) && parsed.host().is_some(),
        "the server {given:?} is neither an https:// nor an http:// URL"
    );
    Ok(parsed)
}
