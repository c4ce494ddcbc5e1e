//! Limits for responses of an API server, or of a proxy in its place: their time and their length.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header::UPGRADE};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};
use tracing::debug;

/// The default time limit for a response, or for the start of a stream.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);
/// The longest response, in bytes: a page of 500 pods has about 5 MB.
const RESPONSE_MAX: usize = 64 << 20;
/// The longest line of a watch, in bytes. etcd stores no object that is longer than 1.5 MB.
const LINE_MAX: usize = 8 << 20;

/// The limit that a response exceeded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("no response within {0:?}")]
    Time(Duration),
    #[error("the response is longer than {RESPONSE_MAX} bytes")]
    Length,
    #[error("a line of the watch is longer than {LINE_MAX} bytes")]
    Line,
}

/// Limits the responses of a service.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
}

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, timeout: self.timeout }
    }
}

/// A service with limited responses.
#[derive(Clone)]
pub(super) struct Limited<S> {
    inner: S,
    timeout: Duration,
}

/// The kind of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It ends, after a limited time.
    Whole,
    /// It does not end, and has lines.
    Watch,
    /// It becomes another protocol.
    Upgrade,
}

impl Kind {
    fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let query = uri.query().unwrap_or_default();
        if headers.contains_key(UPGRADE) {
            Self::Upgrade
        } else if query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")) {
            Self::Watch
        } else {
            Self::Whole
        }
    }
}

impl<S, R, B> Service<Request<R>> for Limited<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<LimitedBody<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let kind = Kind::of(request.uri(), request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (timeout, begun) = (self.timeout, Instant::now());
        let response = self.inner.call(request);
        Box::pin(async move {
            let deadline = begun + timeout;
            let response = timeout_at(deadline, response).await.map_err(|_| Exceeded::Time(timeout))?;
            let response = response.map_err(Into::into);
            let millis = begun.elapsed().as_millis();
            let outcome = response
                .as_ref()
                .map_or_else(|_| "failed".to_owned(), |response| response.status().to_string());
            debug!("{method} {uri} {outcome} in {millis} milliseconds");
            let response = response?;
            let is_refused = kind == Kind::Upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS;
            let kind = if is_refused { Kind::Whole } else { kind };
            Ok(response.map(|inner| LimitedBody {
                inner: Box::pin(inner),
                kind,
                length: 0,
                timeout,
                deadline: (kind == Kind::Whole).then(|| Box::pin(sleep_until(deadline))),
            }))
        })
    }
}

/// A body with limits.
pub(super) struct LimitedBody<B> {
    inner: Pin<Box<B>>,
    kind: Kind,
    /// The number of bytes so far; for a watch, in the current line.
    length: usize,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> LimitedBody<B> {
    fn count(&mut self, data: &Bytes) -> Result<(), Exceeded> {
        let (begun, exceeded, max) = match self.kind {
            Kind::Whole => (None, Exceeded::Length, RESPONSE_MAX),
            Kind::Watch => (data.iter().rposition(|byte| *byte == b'\n'), Exceeded::Line, LINE_MAX),
            Kind::Upgrade => return Ok(()),
        };
        self.length = match begun {
            Some(end) => data.len() - end - 1,
            None => self.length + data.len(),
        };
        if self.length > max { Err(exceeded) } else { Ok(()) }
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(Exceeded::Time(this.timeout).into())));
        }
        let frame = std::task::ready!(this.inner.as_mut().poll_frame(context));
        let frame = frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            if let Some(data) = frame.data_ref() {
                this.count(data)?;
            }
            Ok(frame)
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: Kind) -> LimitedBody<http_body_util::Full<Bytes>> {
        LimitedBody {
            inner: Box::pin(http_body_util::Full::default()),
            kind,
            length: 0,
            timeout: TIMEOUT,
            deadline: None,
        }
    }

    #[test]
    fn the_request_determines_the_kind_of_response() {
        let kind = |uri: &str, headers: &HeaderMap| Kind::of(&uri.parse().unwrap(), headers);
        let mut upgrade = HeaderMap::new();
        assert_eq!(kind("/api/v1/pods?limit=500", &upgrade), Kind::Whole);
        assert_eq!(kind("/api/v1/pods?limit=500&watch=true", &upgrade), Kind::Watch);
        assert_eq!(kind("/api/v1/pods?labelSelector=watch=true", &upgrade), Kind::Whole);
        upgrade.insert(UPGRADE, "websocket".parse().unwrap());
        assert_eq!(kind("/api/v1/namespaces/n/pods/p/exec", &upgrade), Kind::Upgrade);
    }

    #[test]
    fn responses_and_lines_of_watches_have_a_maximum_length() {
        let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
        let mut whole = body(Kind::Whole);
        assert!((0..64).all(|_| whole.count(&megabyte).is_ok()));
        assert!(matches!(whole.count(&Bytes::from_static(b"x")), Err(Exceeded::Length)));
        let mut watch = body(Kind::Watch);
        for _ in 0..100 {
            assert!((0..7).all(|_| watch.count(&megabyte).is_ok()));
            watch.count(&Bytes::from_static(b"}\n{")).unwrap();
        }
        assert!((0..7).all(|_| watch.count(&megabyte).is_ok()));
        assert!(matches!(watch.count(&megabyte), Err(Exceeded::Line)));
    }
}
