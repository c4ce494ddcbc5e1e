//! Loading the programs, attaching them, and taking them away again.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, Map, MapData, PerCpuArray, Queue, RingBuf},
    programs::{BtfTracePoint, ProgramError, tp_btf::BtfTracePointLinkId},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracer_common::{
    Comm, comm_of,
    container::{RESTORER, RUNTIME},
    event::Kind,
    offsets::FIELDS,
    stats::{Program, ProgramStats},
};
use tracing::debug;

use super::{
    EventRing, KERNEL_BTF, offsets,
    stats::{self, Counters},
};
use crate::{containers::RegistryMaps, error::Unsupported, runtime::INITIAL_PID_NS};

/// Containers and runtime invocations that can be known at a time. More are counted as lost.
const SLOTS: u32 = 32_768;
/// Processes in containers that can be followed at a time, whatever the kernel would allow to exist.
const PROCESSES_MAX: u32 = 1 << 18;
/// Data in the event ring at which its reader is woken, unless the ring is smaller.
const WAKE_BYTES: u64 = 64 * 1024;

/// The file name of what runtimes restore containers with.
const RESTORER_NAME: &str = "criu";

/// The BPF object, built from source by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-ebpf"));

/// What the programs are loaded for.
#[derive(Debug)]
pub struct Options<'a> {
    /// The traced kind; none where containers are followed only.
    pub kind: Option<Kind>,
    /// Size of the event ring in bytes: a power of two, a page at least.
    pub buffer_size: u32,
    /// Whether events of host processes are wanted.
    pub host: bool,
    /// Whether only failed calls are wanted.
    pub failed: bool,
    /// File names of container runtimes.
    pub runtimes: &'a [String],
    /// Whether the programs' own log is wanted.
    pub log: bool,
}

/// The loaded programs with their maps. Dropped, or its process killed, it leaves nothing in the kernel.
pub struct Bpf {
    ebpf: Ebpf,
    /// The programs that this kind needs, with the hook of each, in the order they are attached.
    programs: &'static [(Program, &'static str)],
    links: Vec<(Program, BtfTracePointLinkId)>,
    kind: Option<Kind>,
    stats: PerCpuArray<MapData, ProgramStats>,
}

/// What the rest of `tracer` reads and writes.
pub struct Maps {
    /// Traced events.
    pub events: EventRing,
    /// What runtimes do.
    pub lifecycle: RingBuf<MapData>,
    /// What is known and decided about containers.
    pub registry: RegistryMaps,
}

// Exits and forks before executions: what starts to be followed must not slip away. Traced events last, when
// the containers they belong to are already seen.
const OPEN_PROGRAMS: &[(Program, &str)] = &[
    (Program::ProcessExit, "sched_process_exit"),
    (Program::ProcessFork, "sched_process_fork"),
    (Program::ProcessExec, "sched_process_exec"),
    (Program::OpenExit, "sys_exit"),
];
const EXEC_PROGRAMS: &[(Program, &str)] = &[
    (Program::ProcessExit, "sched_process_exit"),
    (Program::ProcessFork, "sched_process_fork"),
    (Program::ExecExit, "sys_exit"),
    (Program::ProcessExec, "sched_process_exec"),
];

impl Bpf {
    /// Loads what tracing `options.kind` needs; nothing is attached yet.
    pub fn load(options: &Options<'_>) -> anyhow::Result<(Self, Maps)> {
        let programs = match options.kind {
            Some(Kind::Open) => OPEN_PROGRAMS,
            Some(Kind::Exec) | None => EXEC_PROGRAMS,
        };
        let globals = Globals::new(options)?;
        lift_memlock_limit();
        let mut loader = EbpfLoader::new();
        for (field, offset) in FIELDS.iter().zip(&globals.offsets) {
            loader.override_global(field.global, offset, true);
        }
        let aya_log_level = u8::from(options.log) * aya_log::Level::Debug as u8;
        let mut ebpf = loader
            .override_global("TRACER_PID", &globals.tracer_pid, true)
            .override_global("TRACER_PID_NS", &globals.tracer_pid_ns, true)
            .override_global("TRACE_EXEC", &globals.trace_exec, true)
            .override_global("TRACE_HOST", &globals.trace_host, true)
            .override_global("FAILED_ONLY", &globals.failed_only, true)
            .override_global("WAKE_BYTES", &globals.wake_bytes, true)
            .override_global(aya_log::LEVEL, &aya_log_level, false)
            .map_max_entries("EVENTS", options.buffer_size)
            .map_max_entries("PROCESSES", processes_max())
            .map_max_entries("ADOPTEES", adoptees_max())
            .map_max_entries("SLOTS", SLOTS)
            .map_max_entries("VERDICTS", SLOTS)
            .map_max_entries("FREE_SLOTS", SLOTS)
            .load(OBJECT)
            .map_err(explain_maps)?;

        let btf = Btf::from_sys_fs().with_context(|| format!("parsing {KERNEL_BTF}"))?;
        for (program, hook) in programs {
            tracepoint(&mut ebpf, *program)?
                .load(hook, &btf)
                .map_err(|error| explain(error, program.name(), hook))?;
        }

        let mut runtimes: HashMap<_, Comm, u8> = take(&mut ebpf, "RUNTIMES")?;
        let names = options.runtimes.iter().map(|name| (name.as_str(), RUNTIME));
        for (name, what) in names.chain([(RESTORER_NAME, RESTORER)]) {
            runtimes
                .insert(&comm_of(name), &what, 0)
                .with_context(|| format!("naming {name} a container runtime"))?;
        }
        let mut free_slots: Queue<_, u32> = take(&mut ebpf, "FREE_SLOTS")?;
        for slot in 0..SLOTS {
            free_slots.push(&slot, 0).context("filling the map FREE_SLOTS")?;
        }
        let maps = Maps {
            events: EventRing::new(take_untyped(&mut ebpf, "EVENTS")?, take(&mut ebpf, "READER_SLEEPS")?)?,
            lifecycle: take(&mut ebpf, "LIFECYCLE")?,
            registry: RegistryMaps {
                verdicts: take(&mut ebpf, "VERDICTS")?,
                free_slots,
                slots: take(&mut ebpf, "SLOTS")?,
                adoptees: take(&mut ebpf, "ADOPTEES")?,
                processes: take(&mut ebpf, "PROCESSES")?,
            },
        };
        let stats = take(&mut ebpf, "STATS")?;
        Ok((Self { ebpf, programs, links: Vec::new(), kind: options.kind, stats }, maps))
    }

    /// The object, for its log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Attaches every program. On an error those that were attached go with `self`.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        for (program, hook) in self.programs {
            let link = tracepoint(&mut self.ebpf, *program)?
                .attach()
                .with_context(|| format!("attaching the BPF program {} to {hook}", program.name()))?;
            self.links.push((*program, link));
        }
        Ok(())
    }

    /// Detaches every program and waits until the last one that runs has ended: from then on the rings and the
    /// counters stand still.
    pub fn detach(&mut self) -> anyhow::Result<()> {
        // The events first: as long as they come, what they belong to is followed.
        for (program, link) in self.links.drain(..).rev() {
            tracepoint(&mut self.ebpf, program)?
                .detach(link)
                .with_context(|| format!("detaching the BPF program {}", program.name()))?;
        }
        wait_for_running_programs();
        Ok(())
    }

    /// Adds the counters up.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let mut counters = Counters::default();
        for (program, _) in self.programs {
            let per_cpu = self
                .stats
                .get(&(*program as u32), 0)
                .with_context(|| format!("reading the counters of {}", program.name()))?;
            per_cpu.iter().for_each(|stats| counters.add(stats));
            let loaded = self.ebpf.program(program.name()).context("a program is gone")?;
            let is_hook = self.kind.is_some_and(|kind| stats::is_hook_of(*program, kind));
            counters.add_skipped(is_hook, stats::recursion_misses(loaded.fd()?));
        }
        Ok(counters)
    }
}

/// What the programs are told, kept here because the loader borrows it.
struct Globals {
    offsets: Vec<u32>,
    tracer_pid: u32,
    tracer_pid_ns: u32,
    trace_exec: u32,
    trace_host: u32,
    failed_only: u32,
    wake_bytes: u64,
}

impl Globals {
    fn new(options: &Options<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            offsets: offsets::resolve(Path::new(KERNEL_BTF))?,
            tracer_pid: std::process::id(),
            tracer_pid_ns: nested_pid_ns()?,
            trace_exec: u32::from(options.kind == Some(Kind::Exec)),
            trace_host: u32::from(options.host),
            failed_only: u32::from(options.failed),
            wake_bytes: WAKE_BYTES.min(u64::from(options.buffer_size) / 4),
        })
    }
}

/// The inode number of the pid namespace that this process is in; 0 for the initial one.
fn nested_pid_ns() -> anyhow::Result<u32> {
    let path = "/proc/self/ns/pid";
    let inode = rustix::fs::stat(path).with_context(|| format!("reading {path}"))?.st_ino;
    if inode == INITIAL_PID_NS {
        return Ok(0);
    }
    u32::try_from(inode).with_context(|| format!("{path} has the inode number {inode}"))
}

/// Before Linux 5.11 maps count against this limit. Later it does not matter, and a refusal is no reason to stop.
fn lift_memlock_limit() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        debug!("the limit of locked memory stays what it is: {error}");
    }
}

/// How many processes there can be at all, within bounds: the map is allocated at once, 80 bytes an entry.
fn processes_max() -> u32 {
    let limit = |path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
        .into_iter()
        .filter_map(limit)
        .min()
        .unwrap_or(PROCESSES_MAX)
        .clamp(4096, PROCESSES_MAX)
}

/// How many processes there are now, and some more: only they can be adopted.
fn adoptees_max() -> u32 {
    let processes = fs::read_dir("/proc").map_or(0, Iterator::count);
    u32::try_from(2 * processes + 1024).unwrap_or(u32::MAX).min(PROCESSES_MAX)
}

/// The programs run within RCU read-side sections or with preemption off; this call returns when all such
/// sections that it found running have ended. Detaching alone does not wait.
fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: takes numbers, touches no memory of ours.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if failed {
        // Refused on kernels with nohz_full CPUs. No program runs for as long as this.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The maps were refused.
fn explain_maps(error: EbpfError) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let is_eperm = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
    };
    if error.chain().any(is_eperm) {
        return Unsupported::new(
            "not permitted: the kernel refuses BPF maps",
            "run tracer as root of the host: capabilities within a user namespace do not count, and a security \
             module or a seccomp filter may forbid bpf(2)",
        )
        .into();
    }
    error.context("loading the BPF maps")
}

/// A program was refused. The verifier's whole log is for `-v`; its end tells what it did not like.
fn explain(error: ProgramError, program: &str, hook: &str) -> anyhow::Error {
    const LINES: usize = 12;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(format!("loading the BPF program {program} for {hook}"));
    };
    if io_error.raw_os_error() == Some(libc::EPERM) {
        return Unsupported::new(
            format!("not permitted: the kernel refuses the BPF program {program} for {hook} ({io_error})"),
            "`tracer doctor` shows which capability is missing; else a security module or a seccomp filter \
             forbids bpf(2)",
        )
        .into();
    }
    let log = verifier_log.to_string();
    debug!("the verifier's log of {program}:\n{log}");
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    anyhow!("loading the BPF program {program} for {hook}: {io_error}; the end of the verifier's log:\n{end}")
}

fn tracepoint(ebpf: &mut Ebpf, program: Program) -> anyhow::Result<&mut BtfTracePoint> {
    let name = program.name();
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    M::try_from(take_untyped(ebpf, name)?).with_context(|| format!("using the BPF map {name}"))
}

fn take_untyped(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))
}
