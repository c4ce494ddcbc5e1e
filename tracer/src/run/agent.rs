//! `tracer agent`: the idle first process of a container in which `kubectl tracer` runs `tracer` commands. It traces
//! nothing and uses no CPU time.

use std::time::Duration;

use crate::{
    run::{
        limits::{End, Limits},
        reporter::Reporter,
    },
    sys::{stderr::status, thread::local_runtime},
};

/// Waits for a signal, or for the end of the lease.
pub(crate) fn run(lease: Option<Duration>) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let end = End::new(Limits { lease, timeout: None }, || Reporter::Lines.alive())?;
        status("ready");
        end.reached().await;
        Ok(())
    })
}
