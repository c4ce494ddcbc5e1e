//! What runtimes keep of a container on disk while it exists: where its bundle is.
//!
//! runc: `ROOT/ID/state.json`, the bundle among the labels of its config (libcontainer's `State`). crun:
//! `ROOT/ID/status`. youki: `ROOT/ID/state.json`, with the field that the OCI specification has for it.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::files::{self, FileError};

/// Why the state does not lead to a bundle.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is none, or it was not read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file that was tried last.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// It is not a runtime's state.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It names no bundle.
    #[error("{}: it names no bundle", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
}

/// The files of all runtimes, one after the other.
const FILES: [&str; 2] = ["state.json", "status"];

#[derive(Deserialize)]
struct State {
    bundle: Option<PathBuf>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    labels: Vec<String>,
}

/// The bundle of the container that a runtime with the state directory `directory` calls `id`.
pub fn bundle(root: BorrowedFd<'_>, directory: &Path, id: &str) -> Result<PathBuf, StateError> {
    if id.contains('/') {
        return Err(StateError::NoBundle { path: directory.join(id) });
    }
    let mut refused = None;
    for name in FILES {
        let path = directory.join(id).join(name);
        match files::read_below(root, &path) {
            Ok(bytes) => return parse(&bytes, path),
            Err(source) => refused = Some(StateError::File { path, source }),
        }
    }
    Err(refused.unwrap_or_else(|| StateError::NoBundle { path: directory.join(id) }))
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<PathBuf, StateError> {
    let state: State = match serde_json::from_slice(bytes) {
        Ok(state) => state,
        Err(source) => return Err(StateError::Json { path, source }),
    };
    // runc makes a label of every annotation, which a pod's author may have chosen, and puts its own last.
    let label = || Some(state.config?.labels.last()?.strip_prefix("bundle=")?.into());
    state.bundle.or_else(label).ok_or(StateError::NoBundle { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle_in(json: &str) -> Result<PathBuf, StateError> {
        parse(json.as_bytes(), "/run/runc/1/state.json".into())
    }

    #[test]
    fn each_runtime_has_its_place_for_the_bundle() {
        let runc = r#"{"id":"1","config":{"labels":["a=b","bundle=/b"],"rootfs":"/r"},"init_process_pid":7}"#;
        let crun = r#"{"pid":7,"bundle":"/b","rootfs":"/r"}"#;
        for json in [runc, crun] {
            assert_eq!(bundle_in(json).unwrap(), PathBuf::from("/b"), "{json}");
        }
    }

    #[test]
    fn an_annotation_called_bundle_is_not_the_bundle() {
        let json = r#"{"config":{"labels":["bundle=/annotation","bundle=/b"]}}"#;
        assert_eq!(bundle_in(json).unwrap(), PathBuf::from("/b"));
        assert!(bundle_in(r#"{"config":{"labels":["bundle=/annotation","a=b"]}}"#).is_err());
    }

    #[test]
    fn a_state_without_bundle_is_an_error_that_names_the_file() {
        for json in ["{}", r#"{"config":{"labels":["x"]}}"#, "[", r#"{"bundle":1}"#] {
            let error = bundle_in(json).unwrap_err().to_string();
            assert!(error.contains("/run/runc/1/state.json"), "{error}");
        }
    }
}
