//! Where container engines listen.

use std::path::{Path, PathBuf};

use crate::sys::host_root;

/// Where engines listen unless they are told otherwise.
///
/// - containerd's and CRI-O's own defaults, which kubeadm and `crictl` look at as well; Bottlerocket, Talos and kind
///   keep containerd's
/// - k3s and rke2 (`pkg/agent/config` of k3s), k0s (`pkg/config` of k0s), microk8s (its `containerd` service, in
///   the snap's common directory) run a containerd of their own
/// - cri-dockerd's default. The dockershim was part of the kubelet and went with Kubernetes 1.24.
pub(crate) const SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// What means that no engine is to be asked.
pub(crate) const NONE: &str = "none";

/// The sockets of the engines to ask: the one that was `given`, else those of [`SOCKETS`] that exist.
pub(crate) fn endpoints(given: Option<&str>) -> Result<Vec<PathBuf>, String> {
    match given {
        None => {
            Ok(SOCKETS.into_iter().map(PathBuf::from).filter(|path| host_root::is_socket(path)).collect())
        }
        Some(NONE) => Ok(Vec::new()),
        Some(given) => Ok(vec![parse(given)?]),
    }
}

fn parse(given: &str) -> Result<PathBuf, String> {
    let path = given.strip_prefix("unix://").unwrap_or(given);
    if Path::new(path).is_absolute() && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(format!(
            "{given:?} is not an engine's socket; write unix:///PATH, an absolute path, or {NONE} to ask no engine"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_given_as_url_or_path() {
        for given in ["unix:///run/x.sock", "/run/x.sock"] {
            assert_eq!(endpoints(Some(given)).unwrap(), [PathBuf::from("/run/x.sock")]);
        }
    }

    #[test]
    fn none_is_nobody() {
        assert!(endpoints(Some(NONE)).unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_an_error_that_shows_it() {
        let wrong = [
            "",
            "run/x.sock",
            "unix://",
            "unix://run/x.sock",
            "unix:/run/x.sock",
            "tcp://127.0.0.1:1",
            "npipe:////./pipe/x",
            "http://x/",
            "None",
            "/run/x\0.sock",
        ];
        for given in wrong {
            let error = endpoints(Some(given)).unwrap_err();
            assert!(error.contains(&format!("{given:?}")) && error.contains("unix:///PATH"), "{error}");
        }
    }

    #[test]
    fn of_the_usual_ones_those_are_asked_that_are_there() {
        let found = endpoints(None).unwrap();
        let there: Vec<PathBuf> =
            SOCKETS.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect();
        assert_eq!(found, there);
    }
}
