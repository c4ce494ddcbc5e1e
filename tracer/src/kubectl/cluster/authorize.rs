//! Adds the credentials of a plugin to requests and connections, and runs the plugin again when they expire or the server
//! refuses them, as client-go does (`plugin/pkg/client/auth/exec/exec.go`).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::AUTHORIZATION};
use jiff::Timestamp;
use kube::client::Body;
use rustls::crypto::CryptoProvider;
use secrecy::ExposeSecret as _;
use tokio::{sync::Mutex, task::spawn_blocking};
use tower::{BoxError, Layer, Service};
use tracing::debug;

use crate::kubectl::cluster::{identity, identity::Identity, plugin::Plugin};

/// The credentials of a plugin, shared by all requests.
pub(super) struct Source {
    plugin: Arc<Plugin>,
    provider: Arc<CryptoProvider>,
    /// The certificate for new connections.
    identity: Arc<Identity>,
    current: Mutex<Option<Current>>,
}

/// The latest credentials.
#[derive(Clone)]
struct Current {
    /// How often the plugin has run.
    run: u64,
    header: Option<HeaderValue>,
    expires: Option<Timestamp>,
}

impl Source {
    /// The plugin runs when the first request is sent.
    pub(super) fn new(plugin: Plugin, identity: Arc<Identity>, provider: Arc<CryptoProvider>) -> Self {
        Self { plugin: Arc::new(plugin), provider, identity, current: Mutex::default() }
    }

    /// The credentials for a request, from a later run than `refused`.
    async fn credentials(self: &Arc<Self>, refused: Option<u64>) -> Result<Current> {
        if let Ok(current) = self.current.try_lock()
            && let Some(known) = current.as_ref().filter(|known| known.is_usable(refused))
        {
            return Ok(known.clone());
        }
        // A separate task: if the request is canceled, the plugin must not run (and prompt) a second time.
        let source = Arc::clone(self);
        tokio::spawn(async move { source.renew(refused).await })
            .await
            .context("running the credential plugin")?
    }

    /// Runs the plugin. Concurrent requests wait for one run.
    async fn renew(&self, refused: Option<u64>) -> Result<Current> {
        let mut current = self.current.lock().await;
        if let Some(known) = current.as_ref().filter(|known| known.is_usable(refused)) {
            return Ok(known.clone());
        }
        debug!("running the credential plugin");
        let plugin = Arc::clone(&self.plugin);
        let printed =
            spawn_blocking(move || plugin.run()).await.context("running the credential plugin")??;
        let header =
            printed.token.map(|token| HeaderValue::try_from(format!("Bearer {}", token.expose_secret())));
        let mut header =
            header.transpose().context("the credential plugin's token is not valid in a header")?;
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        let identity = printed.identity.map(|(certificate, key)| {
            identity::parse(certificate.as_bytes(), key.expose_secret().as_bytes(), &self.provider)
        });
        self.identity.set(identity.transpose().context("the credential plugin's certificate")?);
        let run = current.as_ref().map_or(0, |known| known.run) + 1;
        Ok(current.insert(Current { run, header, expires: printed.expires }).clone())
    }
}

impl Current {
    /// Whether the credentials have not expired, and are from a later run than `refused`.
    fn is_usable(&self, refused: Option<u64>) -> bool {
        refused.is_none_or(|run| self.run > run)
            && self.expires.is_none_or(|expires| Timestamp::now() < expires)
    }
}

/// Authorizes the requests of a service by a [`Source`].
#[derive(Clone)]
pub(super) struct Authorize(pub(super) Arc<Source>);

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, source: Arc::clone(&self.0) }
    }
}

/// A service whose requests are authorized.
#[derive(Clone)]
pub(super) struct Authorized<S> {
    inner: S,
    source: Arc<Source>,
}

impl<S, B> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Only the original is ready, not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let source = Arc::clone(&self.source);
        Box::pin(async move {
            let credentials = source.credentials(None).await?;
            let retry = copy_for_retry(&request);
            authorize(&mut request, &credentials);
            let response = inner.call(request).await.map_err(Into::into)?;
            match retry {
                Some(mut retry) if response.status() == StatusCode::UNAUTHORIZED => {
                    authorize(&mut retry, &source.credentials(Some(credentials.run)).await?);
                    std::future::poll_fn(|context| inner.poll_ready(context)).await.map_err(Into::into)?;
                    inner.call(retry).await.map_err(Into::into)
                }
                _ => Ok(response),
            }
        })
    }
}

fn authorize(request: &mut Request<Body>, credentials: &Current) {
    if let Some(header) = &credentials.header {
        request.headers_mut().insert(AUTHORIZATION, header.clone());
    }
}

/// A copy of a request that changes nothing, for a retry.
fn copy_for_retry(request: &Request<Body>) -> Option<Request<Body>> {
    if request.method() != Method::GET {
        return None;
    }
    let mut retry = Request::new(Body::empty());
    *retry.method_mut() = request.method().clone();
    *retry.uri_mut() = request.uri().clone();
    *retry.headers_mut() = request.headers().clone();
    Some(retry)
}
