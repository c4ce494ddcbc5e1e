//! Finds and merges the kubeconfig files, and selects the cluster, user and namespace by the rules of kubectl
//! (client-go 0.36, `tools/clientcmd/loader.go`, `client_config.go` and `validation.go`).

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kube::config::{AuthInfo, Cluster, Context, Kubeconfig};
use tracing::{debug, warn};

use crate::kubectl::args::{ClusterArgs, ServerArgs, UserArgs};

/// The path of a pod's ServiceAccount
/// (<https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api>).
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster, a user, and the default namespace.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) cluster: Cluster,
    pub(super) user: AuthInfo,
    /// The user's name in the kubeconfig, for messages.
    pub(super) user_name: String,
    pub(super) namespace: String,
}

/// Finds the access that the options select. Nothing is sent yet.
pub(super) fn find(args: &ClusterArgs) -> Result<Access> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let files = match (&args.kubeconfig, variable("KUBECONFIG")) {
        (Some(file), _) => Files::Named(file.clone()),
        (None, Some(list)) => Files::Listed(env::split_paths(&list).collect()),
        (None, None) => {
            Files::Listed(env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect())
        }
    };
    let config = read(&files)?;
    let named = [&args.context, &args.cluster, &args.user].into_iter().any(Option::is_some);
    let mut access = if config.contexts.is_empty() && !named && args.server.server.is_none() {
        let none = match &files {
            Files::Named(file) => format!("{} has no context", file.display()),
            Files::Listed(_) => {
                "there is no kubeconfig (--kubeconfig, $KUBECONFIG, ~/.kube/config)".to_owned()
            }
        };
        in_pod(Path::new(SERVICE_ACCOUNT), |name| env::var(name).ok())?
            .ok_or_else(|| anyhow!("{none}, and this is not a pod with a ServiceAccount"))?
    } else {
        select(&config, args)?
    };
    override_cluster(&mut access.cluster, &args.server);
    override_user(&mut access.user, &args.as_user);
    check(&access)?;
    Ok(access)
}

enum Files {
    /// Of `--kubeconfig`: it must exist.
    Named(PathBuf),
    /// Of `$KUBECONFIG`, or the default: missing files are skipped.
    Listed(Vec<PathBuf>),
}

fn read(files: &Files) -> Result<Kubeconfig> {
    let read = |file: &Path| {
        let mut config = Kubeconfig::read_from(file)
            .with_context(|| format!("cannot read the kubeconfig {}", file.display()))?;
        // An empty name counts as none: the next file may set one.
        config.current_context.take_if(|context| context.is_empty());
        Ok::<_, anyhow::Error>(config)
    };
    match files {
        Files::Named(file) => read(file),
        Files::Listed(files) => files.iter().filter(|file| !file.as_os_str().is_empty()).try_fold(
            Kubeconfig::default(),
            |merged, file| {
                if !file.try_exists().unwrap_or(true) {
                    debug!("skipped the kubeconfig {}: it does not exist", file.display());
                    return Ok(merged);
                }
                let merged = merged.merge(read(file)?);
                merged.with_context(|| format!("cannot merge the kubeconfig {}", file.display()))
            },
        ),
    }
}

/// Selects by `--context`, `--cluster` and `--user`, or by the current context.
fn select(config: &Kubeconfig, args: &ClusterArgs) -> Result<Access> {
    let context_name = args.context.as_ref().or(config.current_context.as_ref());
    let context = match context_name {
        Some(name) => find_context(config, name)?,
        None => Context::default(),
    };
    let user_name = args.user.clone().or(context.user).unwrap_or_default();
    let user = config.auth_infos.iter().find(|named| named.name == user_name);
    if user.is_none() && !user_name.is_empty() {
        ensure!(args.user.is_none(), "user {user_name:?} does not exist in the kubeconfig");
        // kubectl continues without a warning.
        warn!(
            "the context names user {user_name:?}, which does not exist in the kubeconfig: no credentials are sent"
        );
    }
    Ok(Access {
        cluster: find_cluster(config, args, context_name, &context.cluster)?,
        user: user.and_then(|named| named.auth_info.clone()).unwrap_or_default(),
        user_name,
        namespace: context.namespace.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
    })
}

fn find_context(config: &Kubeconfig, name: &str) -> Result<Context> {
    let named = config.contexts.iter().find(|named| named.name == name);
    let context = named.with_context(|| format!("context {name:?} does not exist in the kubeconfig"))?;
    Ok(context.context.clone().unwrap_or_default())
}

fn find_cluster(
    config: &Kubeconfig,
    args: &ClusterArgs,
    context: Option<&String>,
    of_context: &str,
) -> Result<Cluster> {
    let name = args.cluster.as_deref().unwrap_or(of_context);
    if let Some(named) = config.clusters.iter().find(|named| named.name == name) {
        return Ok(named.cluster.clone().unwrap_or_default());
    }
    ensure!(args.cluster.is_none(), "cluster {name:?} does not exist in the kubeconfig");
    if args.server.server.is_some() {
        return Ok(Cluster::default());
    }
    match context {
        Some(context) => {
            bail!("context {context:?} names cluster {name:?}, which does not exist in the kubeconfig")
        }
        None => bail!("the kubeconfig has no current context: select one with --context"),
    }
}

/// The access of a pod by its ServiceAccount, if this process runs in one.
fn in_pod(account: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Access>> {
    let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
    else {
        return Ok(None);
    };
    let token = account.join("token");
    if !token.exists() {
        return Ok(None);
    }
    let path = |name: &str| account.join(name).to_str().map(str::to_owned);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let namespace = std::fs::read_to_string(account.join("namespace"));
    let namespace = namespace.with_context(|| format!("cannot read {}/namespace", account.display()))?;
    Ok(Some(Access {
        cluster: Cluster {
            server: Some(format!("https://{host}:{port}")),
            certificate_authority: path("ca.crt"),
            ..Cluster::default()
        },
        user: AuthInfo { token_file: path("token"), ..AuthInfo::default() },
        user_name: "the pod's ServiceAccount".to_owned(),
        namespace: namespace.trim().to_owned(),
    }))
}

/// Applies `--server`, `--certificate-authority` and so on, as kubectl's `getCluster`.
fn override_cluster(cluster: &mut Cluster, args: &ServerArgs) {
    let ServerArgs {
        server,
        certificate_authority,
        tls_server_name,
        insecure_skip_tls_verify,
        request_timeout: _,
        cache_dir: _,
    } = args;
    if server.is_some() || tls_server_name.is_some() {
        // The name in the file belongs to the server in the file.
        cluster.tls_server_name.clone_from(tls_server_name);
    }
    if let Some(server) = server {
        cluster.server = Some(server.clone());
    }
    if *insecure_skip_tls_verify || certificate_authority.is_some() {
        cluster.insecure_skip_tls_verify = Some(*insecure_skip_tls_verify);
        cluster.certificate_authority.clone_from(certificate_authority);
        cluster.certificate_authority_data = None;
    }
}

/// Applies `--token`, `--as` and so on, as kubectl's `getAuthInfo`.
fn override_user(user: &mut AuthInfo, args: &UserArgs) {
    let UserArgs {
        token,
        client_certificate,
        client_key,
        impersonate,
        impersonate_group,
        impersonate_uid,
        impersonate_user_extra,
    } = args;
    if let Some(token) = token {
        user.token = Some(token.clone());
        user.token_file = None;
        // Credential plugins do not change requests that have a token.
        user.exec = None;
    }
    if let Some(certificate) = client_certificate {
        user.client_certificate = Some(certificate.clone());
        user.client_certificate_data = None;
    }
    if let Some(key) = client_key {
        user.client_key = Some(key.clone());
        user.client_key_data = None;
    }
    if let Some(name) = impersonate {
        user.impersonate = Some(name.clone());
    }
    if !impersonate_group.is_empty() {
        user.impersonate_groups = Some(impersonate_group.clone());
    }
    if let Some(uid) = impersonate_uid {
        user.impersonate_uid = Some(uid.clone());
    }
    if !impersonate_user_extra.is_empty() {
        let mut extra: HashMap<String, Vec<String>> = HashMap::new();
        for (key, value) in impersonate_user_extra {
            extra.entry(key.clone()).or_default().push(value.clone());
        }
        user.impersonate_user_extra = Some(extra);
    }
}

/// A value that is set: an empty one counts as none, as in Go.
pub(super) fn filled(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

/// Rejects what kubectl rejects, before anything is sent.
fn check(access: &Access) -> Result<()> {
    let Access { cluster, user, user_name, .. } = access;
    let is_set = |value: &Option<String>| filled(value.as_deref()).is_some();
    let has_authority = is_set(&cluster.certificate_authority) || is_set(&cluster.certificate_authority_data);
    ensure!(
        !(cluster.insecure_skip_tls_verify == Some(true) && has_authority),
        "a certificate authority and insecure-skip-tls-verify exclude each other: remove one of them"
    );
    let extends = user.impersonate_groups.as_ref().is_some_and(|groups| !groups.is_empty())
        || is_set(&user.impersonate_uid)
        || user.impersonate_user_extra.as_ref().is_some_and(|extra| !extra.is_empty());
    ensure!(
        is_set(&user.impersonate) || !extends,
        "groups, a uid or extra values to impersonate require a user: pass --as"
    );
    let methods: Vec<&str> = [
        ("token", user.token.is_some() || is_set(&user.token_file)),
        ("username and password", is_set(&user.username) || user.password.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    ensure!(
        methods.len() < 2,
        "user {user_name:?} has more than one way to authenticate: {}",
        methods.join(", ")
    );
    if let Some(provider) = &user.auth_provider {
        bail!(
            "user {user_name:?} uses the auth-provider {:?}, which Kubernetes 1.26 removed; use the provider's credential \
             plugin (exec)",
            provider.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::kubectl::args::Args;

    fn args(words: &[&str]) -> ClusterArgs {
        let line = [&["kubectl-tracer", "doctor"], words].concat();
        Args::try_parse_from(line).unwrap().common.cluster
    }

    const FILE: &str = r#"
apiVersion: v1
kind: Config
current-context: first
contexts:
- name: first
  context: {cluster: one, user: alice, namespace: shop}
- name: second
  context: {cluster: two, user: nobody}
- name: third
  context: {cluster: none, user: alice}
clusters:
- name: one
  cluster: {server: "https://one", tls-server-name: one.example, certificate-authority: ca.pem}
- name: two
  cluster: {server: "https://two"}
users:
- name: alice
  user: {token: of-alice, as: restricted, as-groups: [a, b], as-uid: "7", as-user-extra: {k: [v]}}
- name: bob
  user: {tokenFile: /token}
- name: group
  user: {as-groups: [a]}
"#;

    fn chosen(words: &[&str]) -> Result<Access> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, FILE).unwrap();
        let file = file.to_str().unwrap();
        find(&args(&[&["--kubeconfig", file], words].concat()))
    }

    fn refused(words: &[&str]) -> String {
        format!("{:#}", chosen(words).unwrap_err())
    }

    #[test]
    fn current_context_selects_cluster_user_and_namespace() {
        let access = chosen(&[]).unwrap();
        assert_eq!(access.cluster.server.as_deref(), Some("https://one"));
        assert_eq!((&*access.user_name, &*access.namespace), ("alice", "shop"));
        assert!(access.cluster.certificate_authority.unwrap().starts_with('/'), "relative to its own file");
    }

    #[test]
    fn impersonation_of_the_kubeconfig_is_kept() {
        let user = chosen(&[]).unwrap().user;
        assert_eq!(user.impersonate.as_deref(), Some("restricted"));
        assert_eq!(user.impersonate_groups.unwrap(), ["a", "b"]);
        assert_eq!(user.impersonate_uid.as_deref(), Some("7"));
        assert_eq!(user.impersonate_user_extra.unwrap()["k"], ["v"]);
    }

    #[test]
    fn options_override_impersonation_one_by_one() {
        let user = chosen(&["--as", "carol"]).unwrap().user;
        assert_eq!(user.impersonate.as_deref(), Some("carol"));
        assert_eq!(user.impersonate_groups.unwrap(), ["a", "b"]);
        let words =
            ["--as-group=x", "--as-group=y", "--as-uid=8", "--as-user-extra=k=1", "--as-user-extra=k=2"];
        let user = chosen(&words).unwrap().user;
        assert_eq!(user.impersonate.as_deref(), Some("restricted"));
        assert_eq!(user.impersonate_groups.unwrap(), ["x", "y"]);
        assert_eq!(user.impersonate_uid.as_deref(), Some("8"));
        assert_eq!(user.impersonate_user_extra.unwrap()["k"], ["1", "2"]);
    }

    #[test]
    fn groups_without_a_user_are_rejected() {
        assert!(refused(&["--user", "group"]).contains("--as"));
        assert!(refused(&["--user", "bob", "--as-uid=1"]).contains("--as"));
    }

    #[test]
    fn names_that_do_not_exist_are_rejected() {
        assert_eq!(refused(&["--context", "nope"]), "context \"nope\" does not exist in the kubeconfig");
        assert_eq!(refused(&["--cluster", "nope"]), "cluster \"nope\" does not exist in the kubeconfig");
        assert_eq!(refused(&["--user", "nope"]), "user \"nope\" does not exist in the kubeconfig");
        assert!(refused(&["--context", "third"]).contains("names cluster \"none\""));
        // kubectl sends no credentials then.
        assert_eq!(chosen(&["--context", "second"]).unwrap().user_name, "nobody");
    }

    #[test]
    fn server_option_removes_the_files_tls_server_name() {
        let cluster = chosen(&["--server", "https://other"]).unwrap().cluster;
        assert_eq!((cluster.server.as_deref(), cluster.tls_server_name), (Some("https://other"), None));
        let cluster = chosen(&["-s=https://other", "--tls-server-name=x"]).unwrap().cluster;
        assert_eq!(cluster.tls_server_name.as_deref(), Some("x"));
    }

    #[test]
    fn skipping_verification_removes_the_files_authority_and_excludes_the_option() {
        let cluster = chosen(&["--insecure-skip-tls-verify"]).unwrap().cluster;
        assert_eq!((cluster.certificate_authority, cluster.insecure_skip_tls_verify), (None, Some(true)));
        assert!(
            refused(&["--insecure-skip-tls-verify", "--certificate-authority=/x"])
                .contains("exclude each other")
        );
    }

    #[test]
    fn token_option_removes_other_tokens_and_plugins() {
        let user = chosen(&["--user=bob", "--token=t"]).unwrap().user;
        assert_eq!((user.token.unwrap().expose_secret(), user.token_file), ("t", None));
    }

    #[test]
    fn a_server_option_works_without_a_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("config");
        fs::write(&empty, "").unwrap();
        let empty = empty.to_str().unwrap();
        let access = find(&args(&["--kubeconfig", empty, "-s", "https://s"])).unwrap();
        assert_eq!((access.cluster.server.as_deref(), &*access.namespace), (Some("https://s"), "default"));
        assert!(find(&args(&["--kubeconfig", empty])).unwrap_err().to_string().contains("has no context"));
        let missing = find(&args(&["--kubeconfig", "/missing"])).unwrap_err();
        assert!(format!("{missing:#}").contains("/missing"));
    }

    #[test]
    fn listed_files_merge_and_the_first_definition_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let first = file(
            "a",
            "current-context: \"\"\nclusters: [{name: one, cluster: {server: \"https://first\"}}]\nusers: []\n",
        );
        fs::create_dir(dir.path().join("sub")).unwrap();
        let second = file("sub/b", FILE);
        let files = Files::Listed(vec![dir.path().join("missing"), PathBuf::new(), first, second]);
        let merged = read(&files).unwrap();
        assert_eq!(merged.current_context.as_deref(), Some("first"));
        let access = select(&merged, &args(&[])).unwrap();
        assert_eq!(access.cluster.server.as_deref(), Some("https://first"));
        assert_eq!(
            access.cluster.certificate_authority, None,
            "of the same name, but not merged field by field"
        );
        assert_eq!(access.user_name, "alice");
        let broken = Files::Listed(vec![file("c", "clusters: [")]);
        assert!(format!("{:#}", read(&broken).unwrap_err()).contains("/c"));
        let directory = Files::Listed(vec![dir.path().to_owned()]);
        assert!(read(&directory).is_err());
    }

    #[test]
    fn a_pod_has_its_service_account() {
        let dir = tempfile::tempdir().unwrap();
        let variable = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        assert!(in_pod(dir.path(), |_| None).unwrap().is_none());
        assert!(in_pod(dir.path(), variable).unwrap().is_none());
        fs::write(dir.path().join("token"), "t").unwrap();
        assert!(in_pod(dir.path(), variable).is_err());
        fs::write(dir.path().join("namespace"), "ns\n").unwrap();
        let access = in_pod(dir.path(), variable).unwrap().unwrap();
        assert_eq!(access.cluster.server.as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(access.namespace, "ns");
        assert!(access.cluster.certificate_authority.unwrap().ends_with("/ca.crt"));
    }

    #[test]
    fn two_ways_to_authenticate_are_rejected() {
        let access = |user: serde_json::Value| Access {
            cluster: Cluster::default(),
            user: serde_json::from_value(user).unwrap(),
            user_name: "u".into(),
            namespace: String::new(),
        };
        let both =
            check(&access(serde_json::json!({"token": "t", "username": "a", "password": "p"}))).unwrap_err();
        assert!(both.to_string().contains("more than one"));
        let provider = check(&access(serde_json::json!({"auth-provider": {"name": "gcp"}}))).unwrap_err();
        assert!(provider.to_string().contains("gcp"));
    }
}
