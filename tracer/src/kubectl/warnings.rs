//! Warnings of API servers, in the header `Warning` of their responses: shown once each, as kubectl does
//! (<https://github.com/kubernetes/client-go/blob/master/rest/warnings.go>,
//! <https://github.com/kubernetes/apimachinery/blob/master/pkg/util/net/http.go>, `ParseWarningHeaders`).

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::TryFutureExt as _;
use http::{HeaderMap, Request, Response, header::WARNING};
use tower::{Layer, Service};

use crate::{
    kubectl::text,
    sanitize,
    sys::{stderr, thread::lock},
};

/// The code of warnings for the user.
const MISCELLANEOUS: &str = "299";
/// How many different warnings are shown: a server may send any number.
const SHOWN_MAX: usize = 50;

/// Shows the warnings of all responses.
#[derive(Clone, Debug, Default)]
pub(super) struct Warnings {
    shown: Arc<Mutex<HashSet<String>>>,
}

impl Warnings {
    fn show(&self, headers: &HeaderMap) {
        for header in headers.get_all(WARNING) {
            for text in parse(&String::from_utf8_lossy(header.as_bytes())) {
                let mut shown = lock(&self.shown);
                if shown.len() < SHOWN_MAX && shown.insert(text.clone()) {
                    let text = sanitize::message(&text::line(&text));
                    stderr::write_line(format!("Warning: {text}\n").into_bytes());
                }
            }
        }
    }
}

impl<S> Layer<S> for Warnings {
    type Service = WithWarnings<S>;

    fn layer(&self, service: S) -> WithWarnings<S> {
        WithWarnings { service, warnings: self.clone() }
    }
}

/// A service whose warnings are shown.
#[derive(Clone, Debug)]
pub(super) struct WithWarnings<S> {
    service: S,
    warnings: Warnings,
}

impl<S, B, R> Service<Request<B>> for WithWarnings<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let warnings = self.warnings.clone();
        Box::pin(self.service.call(request).inspect_ok(move |answer| warnings.show(answer.headers())))
    }
}

/// The texts of a header with the code 299: `299 AGENT "TEXT" "DATE", …` (RFC 7234, 5.5). An invalid part and everything
/// after it are ignored.
fn parse(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = header.trim_start();
    while let Some((code, after)) = rest.split_once(' ') {
        let Some((_agent, after)) = after.trim_start().split_once(' ') else { break };
        let Some((text, after)) = quoted(after.trim_start()) else { break };
        if code == MISCELLANEOUS && !text.is_empty() {
            texts.push(text);
        }
        let date = quoted(after.trim_start()).map_or(after, |(_, after)| after);
        let Some(next) = date.trim_start().strip_prefix(',') else { break };
        rest = next.trim_start();
    }
    texts
}

/// A quoted string at the start, and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut characters = text.strip_prefix('"')?.char_indices();
    let mut quoted = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((quoted, &text[at + 2..])),
            '\\' => quoted.push(characters.next()?.1),
            other => quoted.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_the_code_299_are_read() {
        assert_eq!(parse("299 - \"would violate PodSecurity\""), ["would violate PodSecurity"]);
        let several =
            r#"299 - "one, \"two\" \\", 299 kube "three" "Wed, 21 Oct 2015 07:28:00 GMT", 199 - "four""#;
        assert_eq!(parse(several), ["one, \"two\" \\", "three"]);
        for wrong in ["", "299", "299 -", "299 - text", "299 - \"open", "299 - \"\"", "299 - \"\\"] {
            assert_eq!(parse(wrong), [""; 0], "{wrong}");
        }
    }
}
