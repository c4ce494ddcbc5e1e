//! Sockets of container engines.

use std::path::{Path, PathBuf};

use crate::sys::host_root;

/// Default sockets of engines.
///
/// - containerd's and CRI-O's own defaults, which kubeadm and `crictl` use as well; Bottlerocket, Talos and kind
///   keep containerd's
/// - k3s and rke2 (`pkg/agent/config` of k3s), k0s (`pkg/config` of k0s), and microk8s (its `containerd` service, in
///   the snap's common directory) run a containerd of their own
/// - cri-dockerd's default. The dockershim was part of the kubelet and was removed in Kubernetes 1.24.
pub(crate) const SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// Value of the option that disables queries to engines.
pub(crate) const NONE: &str = "none";

/// A value that is neither a socket nor [`NONE`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an engine socket; expected unix:///PATH, an absolute path, or {NONE:?} to query no engine"
)]
pub(crate) struct EndpointError(String);
/// The sockets of the engines to query: the `given` one, else those of [`SOCKETS`] that exist.
pub(crate) fn endpoints(given: Option<&str>) -> Result<Vec<PathBuf>, EndpointError> {
    match given {
        None => {
            Ok(SOCKETS.into_iter().map(PathBuf::from).filter(|path| host_root::is_socket(path)).collect())
        }
        Some(NONE) => Ok(Vec::new()),
        Some(given) => Ok(vec![parse(given)?]),
    }
}

fn parse(given: &str) -> Result<PathBuf, EndpointError> {
    let path = given.strip_prefix("unix://").unwrap_or(given);
    if Path::new(path).is_absolute() && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(EndpointError(given.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_is_accepted_as_url_or_absolute_path() {
        for given in ["unix:///run/x.sock", "/run/x.sock"] {
            assert_eq!(endpoints(Some(given)).unwrap(), [PathBuf::from("/run/x.sock")]);
        }
    }

    #[test]
    fn none_selects_no_engine() {
        assert!(endpoints(Some(NONE)).unwrap().is_empty());
    }

    #[test]
    fn any_other_value_is_an_error_that_quotes_it() {
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
            let error = endpoints(Some(given)).unwrap_err().to_string();
            assert!(error.contains(&format!("{given:?}")) && error.contains("unix:///PATH"), "{error}");
        }
    }

    #[test]
    fn default_sockets_are_those_that_exist() {
        let found = endpoints(None).unwrap();
        let existing: Vec<PathBuf> =
            SOCKETS.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect();
        assert_eq!(found, existing);
    }
}
