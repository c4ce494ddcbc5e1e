//! The cluster: made by kind, deleted when it is dropped. The user's own configuration of kubectl is not touched.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    pins::KIND_NODE,
    process::{clean, name, quietly, succeed},
};

/// One control plane, which pods may be put on as well, and one more.
const CONFIG: &str = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
";

/// A cluster that runs.
#[derive(Debug)]
pub(super) struct Cluster {
    name: String,
    scratch: PathBuf,
    /// `PATH`, with kubectl-tracer on it.
    path: OsString,
}

impl Cluster {
    /// Makes one, with its configuration in `scratch`. kubectl will find `client` as its plugin.
    pub(super) fn create(scratch: &Path, client: &Path) -> Result<Self> {
        let cluster = Self::new(format!("tracer-xtask-{}", std::process::id()), scratch, client)?;
        // From here on it is deleted, if only half of it was made, too.
        let mut create =
            cluster.kind(&["create", "cluster", "--image", KIND_NODE, "--config", "-", "--wait", "180s"]);
        let mut child =
            create.stdin(Stdio::piped()).spawn().with_context(|| format!("starting {}", name(&create)))?;
        let mut stdin = child.stdin.take().context("kind's standard input is not a pipe")?;
        stdin.write_all(CONFIG.as_bytes()).context("telling kind what cluster to make")?;
        drop(stdin);
        let status = child.wait()?;
        ensure!(status.success(), "kind made no cluster ({status})");
        Ok(cluster)
    }

    fn new(name: String, scratch: &Path, client: &Path) -> Result<Self> {
        let client = client.parent().context("kubectl-tracer is in no directory")?;
        let others = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([client.to_owned()].into_iter().chain(env::split_paths(&others)))?;
        Ok(Self { name, scratch: scratch.to_owned(), path })
    }

    /// A file of that name, for as long as the cluster is there.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The names of the nodes, which are those of their containers, too.
    pub(super) fn nodes(&self) -> Result<Vec<String>> {
        let said = quietly(&mut self.kind(&["get", "nodes"]))?;
        let mut nodes: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
        nodes.sort();
        Ok(nodes)
    }

    /// Puts an image of docker's onto the nodes.
    pub(super) fn load(&self, image: &str) -> Command {
        self.kind(&["load", "docker-image", image])
    }

    /// Writes the nodes' logs into a directory.
    pub(super) fn export_logs(&self, directory: &Path) -> Command {
        let mut command = self.kind(&["export", "logs"]);
        command.arg(directory);
        command
    }

    pub(super) fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = clean(OsStr::new("kubectl"));
        command.args(arguments).env("KUBECONFIG", self.path("kubeconfig")).env("PATH", &self.path);
        command
    }

    fn kind(&self, arguments: &[&str]) -> Command {
        let mut command = clean(OsStr::new("kind"));
        command.args(arguments).args(["--name", &self.name]).env("KUBECONFIG", self.path("kubeconfig"));
        command
    }
}

/// Prints the name of every process on a node, a line each.
pub(super) fn comms(node: &str) -> Command {
    let mut command = clean(OsStr::new("docker"));
    // A process may end meanwhile.
    command.args(["exec", node, "sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null; true"]);
    command
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = succeed(self.kind(&["delete", "cluster"]).stdin(Stdio::null())) {
            eprintln!("error: {error:#}\n`kind delete cluster --name {}` deletes the cluster", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use serde_yaml_ng::Value;

    use super::*;

    /// One that does not run, and so is not deleted.
    fn cluster() -> ManuallyDrop<Cluster> {
        ManuallyDrop::new(
            Cluster::new("c1".into(), Path::new("/scratch"), Path::new("/bin/x/kubectl-tracer")).unwrap(),
        )
    }

    fn variable(command: &Command, wanted: &str) -> OsString {
        let found = command.get_envs().find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| value).unwrap_or_default().to_owned()
    }

    #[test]
    fn there_are_two_nodes() {
        let config: Value = serde_yaml_ng::from_str(CONFIG).unwrap();
        assert_eq!(config["nodes"].as_sequence().unwrap().len(), 2);
        assert_eq!(config["kind"], "Cluster");
    }

    #[test]
    fn kubectl_has_the_clusters_configuration_and_the_plugin() {
        let kubectl = cluster().kubectl(&["tracer", "deploy"]);
        assert_eq!(name(&kubectl), "kubectl tracer deploy");
        assert_eq!(variable(&kubectl, "KUBECONFIG"), "/scratch/kubeconfig");
        let path = variable(&kubectl, "PATH");
        assert_eq!(env::split_paths(&path).next().unwrap(), Path::new("/bin/x"));
        assert!(env::split_paths(&path).count() > 1);
    }

    #[test]
    fn each_command_is_for_this_cluster_alone() {
        let cluster = cluster();
        assert_eq!(name(&cluster.load("tracer:1")), "kind load docker-image tracer:1 --name c1");
        assert_eq!(name(&cluster.kind(&["delete", "cluster"])), "kind delete cluster --name c1");
        assert_eq!(name(&cluster.export_logs(Path::new("/logs"))), "kind export logs --name c1 /logs");
        assert_eq!(variable(&cluster.kind(&["delete", "cluster"]), "KUBECONFIG"), "/scratch/kubeconfig");
        assert!(name(&comms("c1-worker")).starts_with("docker exec c1-worker sh -c "));
    }
}
