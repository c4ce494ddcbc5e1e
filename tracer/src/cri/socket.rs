//! Connects to an engine's socket if it belongs to root.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use rustix::fs::FileType;
use tokio::net::UnixStream;

use crate::sys::host_root;

/// Why a socket could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It could not be opened, or no process listens.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not a socket.
    #[error("it is not a socket")]
    NotSocket,
    /// Another user could impersonate the node's engine.
    #[error("it belongs to user {0}, not to root")]
    NotRoots(u32),
}

/// Connects to the socket that `path` names now: the checked socket is the one that is connected to.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, SocketError> {
    let file = host_root::look_at(path)?;
    let stat = rustix::fs::fstat(file.as_fd()).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NotSocket);
    }
    if stat.st_uid != 0 {
        return Err(SocketError::NotRoots(stat.st_uid));
    }
    // This path is also short enough for a socket address, however long `path` is.
    Ok(UnixStream::connect(format!("/proc/self/fd/{}", file.as_raw_fd())).await?)
}
