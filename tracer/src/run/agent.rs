//! `tracer agent`: the first process of a container in which `tracer` is run from afar (`kubectl tracer`). It traces
//! nothing, and costs nothing while nobody does.

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
