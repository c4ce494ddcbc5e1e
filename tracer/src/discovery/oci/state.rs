//! The state that runtimes keep of a container on disk while it exists: its bundle and its first process.
//!
//! runc: `ROOT/ID/state.json`, the bundle among the labels of its config (libcontainer's `State`). crun:
//! `ROOT/ID/status`. youki: `ROOT/ID/state.json`, with the field name of the OCI specification.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::sys::{files, files::FileError};

/// Why a state does not lead to a bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// There is no state, or it could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file that was tried last.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// The file is not a runtime's state.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The state names no bundle.
    #[error("{}: no bundle in the state", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
}

/// The file names of all runtimes, in the order in which they are tried.
const FILES: [&str; 2] = ["state.json", "status"];

/// A container's state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RuntimeState {
    /// The container's bundle.
    pub(crate) bundle: PathBuf,
    /// Its first process.
    pub(crate) init: Option<u32>,
    /// Its start time, in clock ticks since boot.
    pub(crate) init_start_ticks: Option<u64>,
}

/// The fields of all runtimes: runc's, then crun's, whose `pid` is youki's too.
#[derive(Deserialize)]
struct Fields {
    config: Option<Config>,
    init_process_pid: Option<u32>,
    init_process_start: Option<u64>,
    bundle: Option<PathBuf>,
    pid: Option<u32>,
    #[serde(rename = "process-start-time")]
    process_start_time: Option<u64>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    labels: Vec<String>,
}

/// The state of the container `id` in the state directory `directory`.
///
/// The files must belong to root or to `owner`.
pub(crate) fn read(
    root: BorrowedFd<'_>,
    directory: &Path,
    id: &str,
    owner: u32,
) -> Result<RuntimeState, StateError> {
    if id.contains('/') {
        return Err(StateError::NoBundle { path: directory.join(id) });
    }
    let mut last_error = None;
    for name in FILES {
        let path = directory.join(id).join(name);
        match files::read_below(root, &path, owner) {
            Ok(bytes) => return parse(&bytes, path),
            Err(source) => last_error = Some(StateError::File { path, source }),
        }
    }
    Err(last_error.unwrap_or_else(|| StateError::NoBundle { path: directory.join(id) }))
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<RuntimeState, StateError> {
    let fields: Fields = match serde_json::from_slice(bytes) {
        Ok(fields) => fields,
        Err(source) => return Err(StateError::Json { path, source }),
    };
    // runc makes a label of every annotation, which a pod's author may have chosen, and appends its own.
    let label = || Some(fields.config?.labels.last()?.strip_prefix("bundle=")?.into());
    let bundle = fields.bundle.or_else(label).ok_or(StateError::NoBundle { path })?;
    Ok(RuntimeState {
        bundle,
        init: fields.init_process_pid.or(fields.pid),
        init_start_ticks: fields.init_process_start.or(fields.process_start_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_in(json: &str) -> Result<RuntimeState, StateError> {
        parse(json.as_bytes(), "/run/runc/1/state.json".into())
    }

    #[test]
    fn fields_of_each_runtime_are_read() {
        let runc =
            r#"{"config":{"labels":["a=b","bundle=/b"]},"init_process_pid":7,"init_process_start":70}"#;
        let crun = r#"{"pid":7,"process-start-time":70,"bundle":"/b","rootfs":"/r"}"#;
        let expected = RuntimeState { bundle: "/b".into(), init: Some(7), init_start_ticks: Some(70) };
        for json in [runc, crun] {
            assert_eq!(state_in(json).unwrap(), expected, "{json}");
        }
        let youki = r#"{"pid":7,"bundle":"/b","status":"running"}"#;
        assert_eq!(state_in(youki).unwrap(), RuntimeState { init_start_ticks: None, ..expected });
    }

    #[test]
    fn annotation_named_bundle_is_not_the_bundle() {
        let json = r#"{"config":{"labels":["bundle=/annotation","bundle=/b"]}}"#;
        assert_eq!(state_in(json).unwrap().bundle, PathBuf::from("/b"));
        assert!(state_in(r#"{"config":{"labels":["bundle=/annotation","a=b"]}}"#).is_err());
    }

    #[test]
    fn state_without_bundle_is_error_that_names_file() {
        for json in ["{}", r#"{"config":{"labels":["x"]}}"#, "[", r#"{"bundle":1}"#] {
            let error = state_in(json).unwrap_err().to_string();
            assert!(error.contains("/run/runc/1/state.json"), "{error}");
        }
    }
}
