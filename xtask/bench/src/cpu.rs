//! Which CPU does what, and how much time a process has had of them.

use std::{sync::OnceLock, thread};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the benchmark was started with.
fn all() -> Result<CpuSet> {
    static ALL: OnceLock<CpuSet> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(*all);
    }
    let set = sched_getaffinity(None).context("asking for the CPUs")?;
    Ok(*ALL.get_or_init(|| set))
}

/// How many there are.
pub(crate) fn count() -> Result<usize> {
    Ok(all()?.count() as usize)
}

/// The load's CPU: the first.
pub(crate) fn of_load() -> Result<usize> {
    let all = all()?;
    (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).context("there is no CPU")
}

/// Leaves the load's CPU to it: this thread, and all that it starts from now on, use the others.
pub(crate) fn leave_to_load() -> Result<()> {
    let mut others = all()?;
    others.unset(of_load()?);
    ensure!(others.count() > 0, "with one CPU there is nothing to measure: the load needs one of its own");
    sched_setaffinity(None, &others).context("leaving a CPU to the load")
}

/// Does something on all CPUs, in a thread of its own.
pub(crate) fn with_all<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let all = all()?;
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            sched_setaffinity(None, &all).context("using all CPUs")?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lets other work of the machine disturb less. Where that is not allowed it disturbs more.
pub(crate) fn take_precedence() {
    const HIGHEST: i32 = -20;
    if let Err(error) = rustix::process::setpriority_process(None, HIGHEST) {
        eprintln!("bench: running at ordinary priority: {error}");
    }
}

/// Nanoseconds of CPU, user and system together, that all threads of a process have had.
pub(crate) fn time_of(pid: u32) -> Result<u64> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    let mut clock = 0;
    // SAFETY: writes one clock id to where it is told, which lives for the call.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(error == 0, "the CPU time of process {pid}: {}", std::io::Error::from_raw_os_error(error));
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec` to where it is told, which lives for the call.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    ensure!(!failed, "the CPU time of process {pid}: {}", std::io::Error::last_os_error());
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}
