//! Connecting to an engine's socket, if it is root's.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use rustix::fs::FileType;
use tokio::net::UnixStream;

use crate::sys::host_root;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// It could not be opened, or nobody listens.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a socket")]
    NotSocket,
    /// Whoever answers there may not speak for the node's engine.
    #[error("it belongs to user {0}, not to root")]
    NotRoots(u32),
}

/// Connects to the socket that `path` names now: what was looked at is what is connected to.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, SocketError> {
    let file = host_root::look_at(path)?;
    let stat = rustix::fs::fstat(file.as_fd()).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NotSocket);
    }
    if stat.st_uid != 0 {
        return Err(SocketError::NotRoots(stat.st_uid));
    }
    // Also short enough for a socket's address, however long `path` is.
    Ok(UnixStream::connect(format!("/proc/self/fd/{}", file.as_raw_fd())).await?)
}
