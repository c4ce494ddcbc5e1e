//! The BPF programs' own log.

use anyhow::Context as _;
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
};

use crate::bpf::Bpf;

/// Passes what the programs log to this process's log.
pub(super) fn forward(bpf: &mut Bpf, runtime: &Runtime) -> anyhow::Result<()> {
    let logger = EbpfLogger::init(bpf.ebpf()).context("reading the BPF programs' log")?;
    let _context = runtime.enter();
    // SAFETY: the logger owns its descriptor, and neither closes nor replaces it before it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .context("watching the BPF programs' log")?;
    runtime.spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
