//! The connection to the cluster, configured as for kubectl: from the kubeconfig files and the options (`kubeconfig`) to a
//! client whose requests are authorized (`authorize`, `plugin`, `identity`), limited (`limits`) and sent over a verified
//! connection (`authority`, `proxy`, `connection`).

mod authority;
mod authorize;
mod connection;
mod identity;
mod kubeconfig;
mod kuberc;
mod limits;
mod plugin;
mod problem;
mod proxy;

use std::env;

use anyhow::Context as _;
use kube::Client;

use crate::kubectl::args::ClusterArgs;
pub(super) use crate::kubectl::cluster::problem::{cause, not_the_api_server, problem, refusal};

/// A client for a cluster.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// The address of the API server, for messages.
    pub(super) server: String,
    /// The namespace of the kubeconfig's context.
    pub(super) namespace: String,
}

impl Cluster {
    /// Prepares the client; nothing is sent yet.
    pub(super) fn find(args: &ClusterArgs) -> anyhow::Result<Self> {
        Self::prepare(args).context("finding the cluster")
    }

    fn prepare(args: &ClusterArgs) -> anyhow::Result<Self> {
        let access = kubeconfig::find(args)?;
        let url = connection::server_url(&access)?;
        let proxy = proxy::select(&url, access.cluster.proxy_url.as_deref(), |name| env::var(name).ok())?;
        let (server, namespace) = (url.to_string(), access.namespace.clone());
        let timeout = args.server.request_timeout.unwrap_or(limits::TIMEOUT);
        let client = connection::client(access, &url, proxy, timeout)?;
        Ok(Self { client, server: server.trim_end_matches('/').to_owned(), namespace })
    }
}
