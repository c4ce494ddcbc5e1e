//! The programs for comparison, in a process of their own as tracer is: `tracer-bench attach KIND`.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FExit, ProgramError, TracePoint},
};
use clap::{Args, ValueEnum};

/// The BPF object, built from source by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-bench-ebpf"));

/// What this process says on stderr when its programs are attached.
pub(crate) const READY: &str = "attached";
/// How it ends where the kernel does not allow a program of that kind.
pub(crate) const REFUSED: i32 = 3;

/// As tracer's: how often the ring is looked at while events come, and its size.
const INTERVAL: Duration = Duration::from_millis(5);
const BUFFER_SIZE: u32 = 8 << 20;

/// Which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// An empty one on `tp_btf/sys_exit`.
    Empty,
    /// One there that writes a record, and a reader that discards it.
    Floor,
    /// As `floor`, with the time, ids, comm and path in the record.
    Filled,
    /// Two on the tracepoints of openat, with a hash map between.
    Tracepoints,
    /// As `empty`, on `fexit/do_sys_openat2`.
    EmptyFexit,
    /// As `floor`, on `fexit/do_sys_openat2`.
    FloorFexit,
}

/// How.
#[derive(Debug, Args)]
pub(crate) struct Options {
    kind: Kind,
    /// Process id of the load.
    #[arg(long)]
    load: u32,
    /// Bytes of a record.
    #[arg(long)]
    record_size: u32,
}

/// Attaches, discards until told to end, says what came.
pub(crate) fn run(options: &Options) -> Result<ControlFlow<i32>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("catching signals")?;
    }
    let mut ebpf = EbpfLoader::new()
        .override_global("LOAD", &options.load, true)
        .override_global("RECORD_SIZE", &options.record_size, true)
        .map_max_entries("RECORDS", BUFFER_SIZE)
        .load(OBJECT)
        .context("loading the maps")?;
    let mut ring = RingBuf::try_from(ebpf.take_map("RECORDS").context("no map RECORDS")?)?;
    let lost: PerCpuArray<_, u64> = ebpf.take_map("LOST").context("no map LOST")?.try_into()?;
    if let Err(error) = attach(&mut ebpf, options.kind) {
        let is_eperm = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
        };
        let refused = error.chain().any(is_eperm)
            || error.downcast_ref::<ProgramError>().is_some_and(
                |error| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM)),
            );
        if refused {
            eprintln!("refused: {error:#}");
            return Ok(ControlFlow::Break(REFUSED));
        }
        return Err(error);
    }
    eprintln!("{READY}");

    let mut received = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        received += discard(&mut ring);
        thread::sleep(INTERVAL);
    }
    drop(ebpf);
    // What ran while the programs were taken away has long ended then.
    thread::sleep(INTERVAL);
    received += discard(&mut ring);
    let lost: u64 = lost.get(&0, 0)?.iter().sum();
    eprintln!("received {received} lost {lost}");
    Ok(ControlFlow::Continue(()))
}

fn discard(ring: &mut RingBuf<aya::maps::MapData>) -> u64 {
    let mut records = 0;
    while let Some(record) = ring.next() {
        // All of it, as whoever decodes it does.
        std::hint::black_box(record.iter().fold(0_u8, |sum, byte| sum ^ byte));
        records += 1;
    }
    records
}

fn attach(ebpf: &mut Ebpf, kind: Kind) -> Result<()> {
    match kind {
        Kind::Empty => sys_exit(ebpf, "empty"),
        Kind::Floor => sys_exit(ebpf, "floor"),
        Kind::Filled => sys_exit(ebpf, "filled"),
        Kind::Tracepoints => {
            // The exit first, so that nothing is kept that nobody takes out.
            for (name, point) in [("leave", "sys_exit_openat"), ("enter", "sys_enter_openat")] {
                let program: &mut TracePoint =
                    ebpf.program_mut(name).context("no such program")?.try_into()?;
                program.load()?;
                program.attach("syscalls", point)?;
            }
            Ok(())
        }
        Kind::EmptyFexit => fexit(ebpf, "empty_fexit"),
        Kind::FloorFexit => fexit(ebpf, "floor_fexit"),
    }
}

fn sys_exit(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program: &mut BtfTracePoint = ebpf.program_mut(name).context("no such program")?.try_into()?;
    program.load("sys_exit", &Btf::from_sys_fs()?)?;
    program.attach()?;
    Ok(())
}

fn fexit(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program: &mut FExit = ebpf.program_mut(name).context("no such program")?.try_into()?;
    program.load("do_sys_openat2", &Btf::from_sys_fs()?)?;
    program.attach()?;
    Ok(())
}
