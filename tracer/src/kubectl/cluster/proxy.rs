//! Selects the proxy for the API server, as kubectl does
//! (<https://github.com/kubernetes/client-go/blob/master/tools/clientcmd/client_config.go>, `proxy-url`;
//! <https://pkg.go.dev/golang.org/x/net/http/httpproxy>, the environment).

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// A proxy, with its user name and password if it requires them.
#[derive(Debug)]
pub(super) enum Proxy {
    /// HTTP CONNECT (RFC 9110, section 9.3.6), possibly over TLS.
    Http { url: Uri, authorization: Option<HeaderValue> },
    /// SOCKS 5 (RFC 1928), with name resolution by the proxy.
    Socks { url: Uri, user: Option<(String, String)> },
}

impl Proxy {
    /// `place` is where the value is configured, for messages.
    fn parse(given: &str, place: &str) -> Result<Self> {
        let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let parsed: Uri =
            url.parse().with_context(|| format!("the proxy {given:?} ({place}) is not a URL"))?;
        let matched = Matcher::builder().all(url).build();
        // It parses the user name and password; the destination does not matter.
        let Some(proxy) = matched.intercept(&Uri::from_static("https://server")) else {
            bail!("the proxy {given:?} ({place}) has an unknown scheme; expected http, https or socks5");
        };
        let url = proxy.uri().clone();
        match parsed.scheme_str() {
            Some("http" | "https") => Ok(Self::Http { url, authorization: proxy.basic_auth().cloned() }),
            Some("socks5" | "socks5h") => {
                let user = proxy.raw_auth().map(|(name, password)| (name.to_owned(), password.to_owned()));
                Ok(Self::Socks { url: with_port(&url, 1080)?, user })
            }
            _ => bail!("the proxy {given:?} ({place}) has an unknown scheme; expected http, https or socks5"),
        }
    }
}

/// Adds a port to a URL without one.
fn with_port(url: &Uri, port: u16) -> Result<Uri> {
    let (Some(authority), None) = (url.authority(), url.port()) else { return Ok(url.clone()) };
    let mut parts = url.clone().into_parts();
    parts.authority = Some(format!("{authority}:{port}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// The proxy for `server`, if any: of the cluster in the kubeconfig, or of the environment.
pub(super) fn select(
    server: &Uri,
    of_cluster: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>> {
    if let Some(proxy) = of_cluster.filter(|proxy| !proxy.is_empty()) {
        return Proxy::parse(proxy, "proxy-url in the kubeconfig").map(Some);
    }
    let variable = |name: &str| {
        [name, &name.to_lowercase()].into_iter().filter_map(&environment).find(|value| !value.is_empty())
    };
    let name = if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    match variable(name) {
        Some(proxy) if !is_local(server) && !is_excepted(server, variable("NO_PROXY")) => {
            Proxy::parse(&proxy, &format!("${name}")).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether the server is on this machine: the environment's proxies are not used for it.
fn is_local(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether `$NO_PROXY` names the server.
fn is_excepted(server: &Uri, no_proxy: Option<String>) -> bool {
    // Only the server is matched.
    let any_other = Matcher::builder().all("http://proxy").no(no_proxy.unwrap_or_default()).build();
    any_other.intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy for `server` in this environment.
    fn proxy(server: &str, of_file: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let chosen = select(&server.parse().unwrap(), of_file, value).unwrap();
        chosen.map(|proxy| match proxy {
            Proxy::Http { url, authorization: None } | Proxy::Socks { url, user: None } => url.to_string(),
            Proxy::Http { url, authorization: Some(value) } => format!("{url} {}", value.to_str().unwrap()),
            Proxy::Socks { url, user: Some((name, password)) } => format!("{url} {name} {password}"),
        })
    }

    const SERVER: &str = "https://api.example.com:6443";
    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://proxy:3128");

    #[test]
    fn the_kubeconfigs_proxy_takes_precedence() {
        let environment = [PROXY, ("NO_PROXY", "*")];
        assert_eq!(proxy(SERVER, Some("http://own:1"), &environment).as_deref(), Some("http://own:1/"));
        assert_eq!(proxy("https://127.0.0.1", Some("http://own:1"), &[]).as_deref(), Some("http://own:1/"));
        assert_eq!(proxy(SERVER, Some(""), &[]), None);
    }

    #[test]
    fn the_environment_has_a_proxy_for_each_scheme() {
        assert_eq!(proxy(SERVER, None, &[PROXY]).as_deref(), Some("http://proxy:3128/"));
        assert_eq!(proxy(SERVER, None, &[("https_proxy", "http://p:1")]).as_deref(), Some("http://p:1/"));
        assert_eq!(
            proxy(SERVER, None, &[("HTTPS_PROXY", "u:p@p:1")]).as_deref(),
            Some("http://p:1/ Basic dTpw")
        );
        assert_eq!(proxy("http://api.example.com", None, &[PROXY]), None);
        assert_eq!(proxy(SERVER, None, &[("HTTP_PROXY", "http://p:1")]), None);
        assert_eq!(proxy(SERVER, None, &[]), None);
        assert_eq!(
            proxy(SERVER, None, &[("HTTPS_PROXY", ""), ("https_proxy", "http://p:1")]).as_deref(),
            Some("http://p:1/")
        );
    }

    #[test]
    fn no_proxy_excludes_servers() {
        for excepted in ["api.example.com", ".example.com", "x, example.com", "*"] {
            assert_eq!(proxy(SERVER, None, &[PROXY, ("NO_PROXY", excepted)]), None, "{excepted}");
        }
        assert_eq!(proxy("https://10.1.2.3:6443", None, &[PROXY, ("no_proxy", "10.0.0.0/8")]), None);
        for other in ["proxy", "ample.com", "10.0.0.0/8", ""] {
            assert!(proxy(SERVER, None, &[PROXY, ("NO_PROXY", other)]).is_some(), "{other}");
        }
    }

    #[test]
    fn the_environments_proxies_are_not_used_for_this_machine() {
        for server in
            ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:6443", "https://127.8.8.8"]
        {
            assert_eq!(proxy(server, None, &[PROXY]), None, "{server}");
        }
    }

    #[test]
    fn schemes_of_kubectl_are_accepted() {
        let of = |given: &str| proxy(SERVER, Some(given), &[]);
        assert_eq!(of("https://p:1").as_deref(), Some("https://p:1/"));
        assert_eq!(of("socks5://p").as_deref(), Some("socks5://p:1080/"));
        assert_eq!(of("socks5h://p:9").as_deref(), Some("socks5h://p:9/"));
        assert_eq!(of("socks5://a%40b:c@p:9").as_deref(), Some("socks5://p:9/ a@b c"));
        assert_eq!(proxy(SERVER, None, &[("HTTPS_PROXY", "socks5://p:1")]).as_deref(), Some("socks5://p:1/"));
    }

    #[test]
    fn errors_name_the_proxy_and_where_it_is_configured() {
        let error = |of_file: Option<&str>| {
            let value = |name: &str| (name == "HTTPS_PROXY").then(|| "http://a b".to_owned());
            select(&SERVER.parse().unwrap(), of_file, value).unwrap_err().to_string()
        };
        assert_eq!(error(None), "the proxy \"http://a b\" ($HTTPS_PROXY) is not a URL");
        assert_eq!(error(Some("%")), "the proxy \"%\" (proxy-url in the kubeconfig) is not a URL");
        assert!(error(Some("ftp://p")).ends_with("has an unknown scheme; expected http, https or socks5"));
        assert!(error(Some("socks4://p")).contains("unknown scheme"));
    }
}
