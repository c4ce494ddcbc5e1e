//! Which proxy leads to the API server: the one that kubectl takes
//! (<https://github.com/kubernetes/client-go/blob/master/tools/clientcmd/client_config.go>, `proxy-url`;
//! <https://pkg.go.dev/golang.org/x/net/http/httpproxy>, the environment). kube looks whether the proxy itself is one of
//! `$NO_PROXY`.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// The `proxy-url` of the cluster that is chosen.
pub(super) fn of_file(file: &Kubeconfig, options: &KubeConfigOptions) -> Option<String> {
    let context = options.context.as_ref().or(file.current_context.as_ref());
    let context = file.contexts.iter().find(|named| Some(&named.name) == context);
    let of_context = context.and_then(|named| Some(&named.context.as_ref()?.cluster));
    let cluster = options.cluster.as_ref().or(of_context)?;
    let named = file.clusters.iter().find(|named| named.name == *cluster)?;
    named.cluster.as_ref()?.proxy_url.clone()
}

/// The proxy for `server`, if any.
pub(super) fn choose(
    server: &Uri,
    of_file: Option<String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>> {
    let parse = |proxy: String, place: &str| {
        let url = if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") };
        url.parse::<Uri>().with_context(|| format!("the proxy {proxy:?} ({place}) is no URL")).map(Some)
    };
    if let Some(proxy) = of_file.filter(|proxy| !proxy.is_empty()) {
        return parse(proxy, "proxy-url in the kubeconfig");
    }
    let variable = |name: &str| {
        [name, &name.to_lowercase()].into_iter().filter_map(&environment).find(|value| !value.is_empty())
    };
    let name = if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    match variable(name) {
        Some(proxy) if !is_here(server) && !is_excepted(server, variable("NO_PROXY")) => {
            parse(proxy, &format!("${name}"))
        }
        _ => Ok(None),
    }
}

/// Whether the server is on this machine: no variable leads there by a proxy.
fn is_here(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether `$NO_PROXY` names the server.
fn is_excepted(server: &Uri, no_proxy: Option<String>) -> bool {
    // What is matched is the server alone.
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
        let chosen = choose(&server.parse().unwrap(), of_file.map(str::to_owned), value).unwrap();
        chosen.map(|proxy| proxy.to_string())
    }

    const SERVER: &str = "https://api.example.com:6443";
    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://proxy:3128");

    #[test]
    fn the_files_comes_first_whatever_the_environment_excepts() {
        let environment = [PROXY, ("NO_PROXY", "*")];
        assert_eq!(proxy(SERVER, Some("http://own:1"), &environment).as_deref(), Some("http://own:1/"));
        assert_eq!(proxy("https://127.0.0.1", Some("http://own:1"), &[]).as_deref(), Some("http://own:1/"));
        assert_eq!(proxy(SERVER, Some(""), &[]), None);
    }

    #[test]
    fn the_environments_is_that_of_the_scheme() {
        assert_eq!(proxy(SERVER, None, &[PROXY]).as_deref(), Some("http://proxy:3128/"));
        assert_eq!(proxy(SERVER, None, &[("https_proxy", "http://p:1")]).as_deref(), Some("http://p:1/"));
        assert_eq!(proxy(SERVER, None, &[("HTTPS_PROXY", "u:p@p:1")]).as_deref(), Some("http://u:p@p:1/"));
        assert_eq!(proxy("http://api.example.com", None, &[PROXY]), None);
        assert_eq!(proxy(SERVER, None, &[("HTTP_PROXY", "http://p:1")]), None);
        assert_eq!(proxy(SERVER, None, &[]), None);
        assert_eq!(
            proxy(SERVER, None, &[("HTTPS_PROXY", ""), ("https_proxy", "http://p:1")]).as_deref(),
            Some("http://p:1/")
        );
    }

    #[test]
    fn what_is_excepted_is_the_server_not_the_proxy() {
        for excepted in ["api.example.com", ".example.com", "x, example.com", "*"] {
            assert_eq!(proxy(SERVER, None, &[PROXY, ("NO_PROXY", excepted)]), None, "{excepted}");
        }
        assert_eq!(proxy("https://10.1.2.3:6443", None, &[PROXY, ("no_proxy", "10.0.0.0/8")]), None);
        for other in ["proxy", "ample.com", "10.0.0.0/8", ""] {
            assert!(proxy(SERVER, None, &[PROXY, ("NO_PROXY", other)]).is_some(), "{other}");
        }
    }

    #[test]
    fn no_variable_leads_to_this_machine() {
        for server in
            ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:6443", "https://127.8.8.8"]
        {
            assert_eq!(proxy(server, None, &[PROXY]), None, "{server}");
        }
    }

    #[test]
    fn what_is_no_url_is_named_with_its_place() {
        let error = |of_file: Option<&str>| {
            let value = |name: &str| (name == "HTTPS_PROXY").then(|| "http://a b".to_owned());
            choose(&SERVER.parse().unwrap(), of_file.map(str::to_owned), value).unwrap_err().to_string()
        };
        assert_eq!(error(None), "the proxy \"http://a b\" ($HTTPS_PROXY) is no URL");
        assert_eq!(error(Some("%")), "the proxy \"%\" (proxy-url in the kubeconfig) is no URL");
    }

    #[test]
    fn the_files_is_that_of_the_cluster_that_is_chosen() {
        let file: Kubeconfig = serde_json::from_value(serde_json::json!({
            "current-context": "a",
            "contexts": [
                {"name": "a", "context": {"cluster": "a", "user": "u"}},
                {"name": "b", "context": {"cluster": "b", "user": "u"}},
            ],
            "clusters": [
                {"name": "a", "cluster": {"server": "https://a"}},
                {"name": "b", "cluster": {"server": "https://b", "proxy-url": "http://p"}},
            ],
        }))
        .unwrap();
        let of = |context: Option<&str>, cluster: Option<&str>| {
            let [context, cluster] = [context, cluster].map(|name| name.map(str::to_owned));
            of_file(&file, &KubeConfigOptions { context, cluster, user: None })
        };
        let p = Some("http://p".to_owned());
        assert_eq!(
            [of(None, None), of(Some("b"), None), of(None, Some("b")), of(Some("b"), Some("a"))],
            [None, p.clone(), p, None]
        );
        assert_eq!(of(Some("missing"), None), None);
    }
}
