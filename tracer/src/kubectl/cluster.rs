//! The connection to the cluster: as kubectl finds it.

use std::env;

use anyhow::{Context as _, anyhow};
use kube::{
    Client, Config,
    client::{AuthError, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{args::ClusterArgs, proxy, warnings::Warnings};

/// A cluster that can be asked.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Where the API server is, for messages.
    pub(super) server: String,
    /// The namespace that the kubeconfig's context names.
    pub(super) namespace: String,
}

impl Cluster {
    /// Finds it; nothing is sent yet.
    pub(super) async fn find(args: &ClusterArgs) -> anyhow::Result<Self> {
        let mut config = config(args).await.context("finding the cluster")?;
        config.auth_info.impersonate.clone_from(&args.impersonate);
        if !args.impersonate_group.is_empty() {
            config.auth_info.impersonate_groups = Some(args.impersonate_group.clone());
        }
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let plugin = config.auth_info.exec.as_ref().and_then(|plugin| plugin.command.clone());
        let builder = ClientBuilder::try_from(config).map_err(|error| {
            anyhow!("preparing to ask the cluster: {}", unprepared(&error, &plugin.unwrap_or_default()))
        })?;
        let client = builder.with_layer(&Warnings::default()).build();
        Ok(Self { client, server: server.trim_end_matches('/').to_owned(), namespace })
    }
}

async fn config(args: &ClusterArgs) -> anyhow::Result<Config> {
    let ClusterArgs { kubeconfig, context, cluster, user, .. } = args;
    let options =
        KubeConfigOptions { context: context.clone(), cluster: cluster.clone(), user: user.clone() };
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let asked_for = kubeconfig.is_some() || context.is_some() || cluster.is_some() || user.is_some();
    let file = match read {
        Ok(file) => file,
        Err(error) if !asked_for && is_missing(&error) => return in_pod(error),
        Err(error) => return Err(error.into()),
    };
    let of_file = proxy::of_file(&file, &options);
    let mut config = Config::from_custom_kubeconfig(file, &options).await?;
    config.proxy_url = proxy::choose(&config.cluster_url, of_file, |name| env::var(name).ok())?;
    Ok(config)
}

/// Whether there is no kubeconfig, rather than one that makes no sense.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// What a pod has of its ServiceAccount.
fn in_pod(missing: KubeconfigError) -> anyhow::Result<Config> {
    Config::incluster().map_err(|_| {
        anyhow::Error::new(missing)
            .context("there is no kubeconfig (--kubeconfig, $KUBECONFIG, ~/.kube/config), and this is no pod")
    })
}

/// Why there is no client: in the words of the plugin that has the credentials, where that is why.
fn unprepared(error: &kube::Error, plugin: &str) -> String {
    match error {
        kube::Error::Auth(AuthError::AuthExecStart(error)) => {
            format!("the kubeconfig's credential plugin {plugin:?} cannot be run: {error}")
        }
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
            let said = String::from_utf8_lossy(&out.stderr);
            let failed = format!("the kubeconfig's credential plugin {plugin:?} has failed ({})", out.status);
            if said.is_empty() { failed } else { format!("{failed}: {}", said.trim_end()) }
        }
        error => chain(error),
    }
}

/// What a call to the API server ended with, without what repeats it.
pub(super) fn problem(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server says {} {}", status.code, status.reason),
        kube::Error::Service(error) => chain(&**error),
        error => chain(error),
    }
}

/// An error with its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text
}
