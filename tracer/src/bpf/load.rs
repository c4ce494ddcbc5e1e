//! Loading the programs, attaching them, and taking them away again.

use std::{fs, path::Path, thread};

use anyhow::{Context as _, anyhow};
use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
    programs::ProgramError,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracer_common::{
    Comm, comm_of,
    container::{RESTORER, RUNTIME},
    event::Kind,
    offsets::FIELDS,
    stats::{Scratch, State},
};
use tracing::{debug, info, warn};

use crate::{
    bpf::{
        ContainerMaps, EventFilter, EventRing, FreeSlots, Hook, MappedRing,
        btf::{KERNEL_BTF, KernelTypes},
        features,
        filter::KernelFilter,
        freeze::freeze_maps,
        hooks,
        hooks::{Hooked, LIFECYCLE, Link, Uring},
        offsets,
        preemption::{Functions, Object},
        stats,
        stats::Counters,
        ways::{Preemption, Taken, Way, Ways},
    },
    error::Unsupported,
    sys::{host_root, process_handle::INITIAL_PID_NS},
};

/// Containers and runtime invocations that can be known at a time. More are counted as lost.
const SLOTS: u32 = 32_768;
/// How many of them are for trusted runtimes only.
const KEPT_SLOTS: u32 = SLOTS / 2;
/// Processes in containers that can be followed at a time, whatever the kernel would allow to exist.
const PROCESSES_MAX: u32 = 1 << 18;
/// Opens that io_uring may have under way at a time, 4 KiB each. More are counted as lost.
const REQUESTS: u32 = 256;
/// What a CPU puts into the event ring at the most between two wake-ups of its reader, which looks by itself every few
/// milliseconds.
const WAKE_BYTES_MAX: u64 = 256 * 1024;

/// The file name of what runtimes restore containers with.
const RESTORER_NAME: &str = "criu";

/// The BPF object, built from source by `build.rs`.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-ebpf"));

/// What the programs are loaded for.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line, and goes with any other"
)]
pub(crate) struct Options<'a> {
    /// The traced kind; none where containers are followed only.
    pub(crate) kind: Option<Kind>,
    /// Size of the event ring in bytes: a power of two, a page at least.
    pub(crate) buffer_size: u32,
    /// Whether events of host processes are wanted.
    pub(crate) host: bool,
    /// Whether only failed calls are wanted.
    pub(crate) failed: bool,
    /// What is asked of events besides.
    pub(crate) filter: &'a EventFilter,
    /// Where opens are hooked; none for the best way that this kernel has.
    pub(crate) hook: Option<Hook>,
    /// File names of container runtimes.
    pub(crate) runtimes: &'a [String],
    /// Whether users' runtimes are trusted.
    pub(crate) trust_rootless: bool,
    /// Whether the programs' own log is wanted.
    pub(crate) log: bool,
}

/// The loaded programs with their maps. Dropped, or its process killed, it leaves nothing in the kernel.
pub(crate) struct Bpf {
    ebpf: Ebpf,
    /// How calls are seen: loaded, and attached unless that is refused.
    way: Way,
    /// What there is to try then.
    ways: Ways,
    /// What those are loaded with; nothing any more when all is attached.
    btf: Option<Btf>,
    /// Programs that have been attached, or were.
    attached: Vec<Hooked>,
    links: Vec<Link>,
    /// What sees the opens of io_uring.
    uring: UringPrograms,
    kind: Option<Kind>,
    stats: PerCpuArray<MapData, State>,
}

/// What the rest of `tracer` reads and writes.
pub(crate) struct Maps {
    /// Traced events.
    pub(crate) events: EventRing,
    /// What runtimes do.
    pub(crate) lifecycle: MappedRing,
    /// What is known and decided about containers.
    pub(crate) registry: ContainerMaps,
}

impl Bpf {
    /// Loads what tracing `options.kind` needs; nothing is attached yet.
    pub(crate) fn load(options: &Options<'_>) -> anyhow::Result<(Self, Maps)> {
        let types = KernelTypes::read(Path::new(KERNEL_BTF))?;
        let btf = types.for_loader().with_context(|| format!("parsing {KERNEL_BTF}"))?;
        let uring = (options.kind == Some(Kind::Open)).then(|| Uring::of_kernel(&types)).flatten();
        let globals = Globals::new(options, &types, uring.as_ref())?;
        let filter = KernelFilter::new(options.filter);
        let object = Object::new(OBJECT, Functions::of_kernel(&types).as_ref())?;
        lift_memlock_limit();
        let mut loader = EbpfLoader::new();
        for (field, offset) in FIELDS.iter().zip(&globals.offsets) {
            loader.override_global(field.global, offset, true);
        }
        let is_needed = |hooked: &Hooked| hooked.is_needed(&types);
        let mut ways = Ways::new(options.kind, options.hook, Preemption::of_kernel(), is_needed);
        let of_uring = uring.iter().flat_map(|uring| &uring.programs);
        let buffers = Buffers::of(ways.programs().chain(&LIFECYCLE).chain(of_uring));
        let aya_log_level = u8::from(options.log) * aya_log::Level::Debug as u8;
        let mut ebpf = loader
            .override_global("TRACER_PID", &globals.tracer_pid, true)
            .override_global("TRACER_PID_NS", &globals.tracer_pid_ns, true)
            .override_global("HOST_MNT_NS", &globals.host_mnt_ns, true)
            .override_global("TRACE_EXEC", &globals.trace_exec, true)
            .override_global("TRACE_HOST", &globals.trace_host, true)
            .override_global("FAILED_ONLY", &globals.failed_only, true)
            .override_global("TRUST_ROOTLESS", &globals.trust_rootless, true)
            .override_global("FILTER_PIDS", &filter.pids.mode, true)
            .override_global("FILTER_UIDS", &filter.uids.mode, true)
            .override_global("FILTER_COMMS", &filter.comms.mode, true)
            .override_global("TYPED_TASKS", &globals.typed_tasks, true)
            .override_global("WAKE_BYTES", &globals.wake_bytes, true)
            .override_global("URING_REQUEST_ARGUMENT", &globals.uring_request_argument, true)
            .override_global("URING_RESULT_ARGUMENT", &globals.uring_result_argument, true)
            .override_global("URING_ERROR_ARGUMENT", &globals.uring_error_argument, true)
            .map_max_entries("REQUESTS", if uring.is_some() { REQUESTS } else { 1 })
            .map_max_entries("REPORTS", if uring.is_some() { 2 * REQUESTS } else { 1 })
            .override_global(aya_log::LEVEL, &aya_log_level, false)
            .map_max_entries("EVENTS", options.buffer_size)
            .map_max_entries("PROCESSES", processes_max())
            .map_max_entries("ADOPTEES", adoptees_max())
            .map_max_entries("EVIDENCE", adoptees_max())
            .map_max_entries("SCRATCH", buffers.long)
            .map_max_entries("SHORT_SCRATCH", buffers.short)
            .map_max_entries("SLOTS", SLOTS)
            .map_max_entries("DECISIONS", SLOTS)
            .map_max_entries("KEPT_SLOTS", KEPT_SLOTS)
            .map_max_entries("FREE_SLOTS", SLOTS - KEPT_SLOTS)
            .map_max_entries("PIDS", filter.pids.max_entries())
            .map_max_entries("UIDS", filter.uids.max_entries())
            .map_max_entries("COMMS", filter.comms.max_entries())
            .load(object.bytes())
            .map_err(explain_maps)?;

        drop(types);
        let (way, uring) = load_programs(&mut ebpf, &mut ways, uring.as_ref(), &btf)?;

        filter.pids.fill(&mut ebpf, "PIDS")?;
        filter.uids.fill(&mut ebpf, "UIDS")?;
        filter.comms.fill(&mut ebpf, "COMMS")?;
        let mut runtimes: HashMap<&mut MapData, Comm, u8> = borrow(&mut ebpf, "RUNTIMES")?;
        let names = options.runtimes.iter().map(|name| (name.as_str(), RUNTIME));
        for (name, what) in names.chain([(RESTORER_NAME, RESTORER)]) {
            runtimes
                .insert(&comm_of(name), &what, 0)
                .with_context(|| format!("naming {name} a container runtime"))?;
        }
        freeze_maps(&ebpf)?;
        let mut free_slots =
            FreeSlots { kept: take(&mut ebpf, "KEPT_SLOTS")?, shared: take(&mut ebpf, "FREE_SLOTS")? };
        free_slots.fill().context("filling the maps KEPT_SLOTS and FREE_SLOTS")?;
        let maps = Maps {
            events: EventRing::new(take_ring(&mut ebpf, "EVENTS")?, take(&mut ebpf, "READER_SLEEPS")?),
            lifecycle: take_ring(&mut ebpf, "LIFECYCLE")?,
            registry: ContainerMaps {
                decisions: take(&mut ebpf, "DECISIONS")?,
                free_slots,
                slots: take(&mut ebpf, "SLOTS")?,
                adoptees: take(&mut ebpf, "ADOPTEES")?,
                epochs: take(&mut ebpf, "EPOCHS")?,
                processes: take(&mut ebpf, "PROCESSES")?,
                evidence: take(&mut ebpf, "EVIDENCE")?,
            },
        };
        let stats = take(&mut ebpf, "STATE")?;
        let (attached, links) = (Vec::new(), Vec::new());
        let btf = Some(btf);
        Ok((Self { ebpf, way, ways, uring, btf, attached, links, kind: options.kind, stats }, maps))
    }

    /// The object, for its log.
    pub(crate) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Attaches every program. On an error those that were attached go with `self`.
    ///
    /// Traced events come last, when the containers that they belong to are already seen. Executions are seen by one of
    /// the programs that follow containers: where they are traced it comes last.
    pub(crate) fn attach(&mut self) -> anyhow::Result<Taken> {
        let [exit, fork, exec] = LIFECYCLE;
        let (first, last): (&[Hooked], &[Hooked]) = match self.kind {
            Some(Kind::Open) => (&[exit, fork, exec], &[]),
            Some(Kind::Exec) | None => (&[exit, fork], &[exec]),
        };
        self.attach_all(first)?;
        self.attach_way()?;
        let without_uring = self.attach_uring();
        self.attach_all(last)?;
        self.btf = None;
        give_memory_back();
        let taken = Taken { without_uring, ..self.ways.taken(&self.way) };
        self.log(&taken);
        Ok(taken)
    }

    /// Attaches what sees calls: the best way that can be attached.
    fn attach_way(&mut self) -> anyhow::Result<()> {
        let before = self.links.len();
        let programs = self.way.programs.clone();
        let Err(error) = self.attach_all(&programs) else { return Ok(()) };
        let error = self.ways.refuse(&self.way, error);
        if !self.ways.is_any_left() {
            return Err(error);
        }
        let mut ways = std::mem::replace(&mut self.ways, Ways::none());
        let way = ways.first(|way| {
            // What was attached of the last one must not see calls twice, nor write where this one does.
            self.links.truncate(before);
            wait_for_running_programs();
            self.load_way(way)?;
            self.attach_all(&way.programs)
        });
        self.ways = ways;
        self.way = way?;
        Ok(())
    }

    /// Attaches what sees the opens of io_uring, if opens are traced. Returns why there is no such thing.
    fn attach_uring(&mut self) -> Option<String> {
        if self.kind != Some(Kind::Open) {
            return None;
        }
        let before = (self.links.len(), self.attached.len());
        let programs = self.uring.clone();
        let attached =
            programs.and_then(|programs| self.attach_all(&programs).map_err(|error| format!("{error:#}")));
        // Some of them alone would tell of requests that never end.
        attached
            .inspect_err(|_| {
                self.links.truncate(before.0);
                self.attached.truncate(before.1);
            })
            .err()
    }

    fn load_way(&mut self, way: &Way) -> anyhow::Result<()> {
        let btf = self.btf.as_ref().context("the kernel's types are gone")?;
        let mut programs: Programs<'_> = self.ebpf.programs_mut().collect();
        thread::scope(|scope| finish_loading(start_loading(scope, &mut programs, &way.programs, btf)?))
    }

    fn attach_all(&mut self, hooked: &[Hooked]) -> anyhow::Result<()> {
        for hooked in hooked {
            let (name, target) = (hooked.name(), hooked.target);
            let loaded =
                self.ebpf.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
            let link = hooks::attach(loaded)
                .with_context(|| format!("attaching the BPF program {name} to {target}"))?;
            self.links.push(link);
            self.attached.push(*hooked);
        }
        Ok(())
    }

    fn log(&self, taken: &Taken) {
        if self.kind == Some(Kind::Open) {
            info!("opens are hooked at {}", taken.hook);
        }
        for refused in &taken.refused {
            info!("not at {refused}");
        }
        if let Some(cost) = &taken.cost {
            warn!("{cost}");
        }
        if let Some(reason) = &taken.without_uring {
            info!("opens through io_uring are not traced: {reason}");
        }
    }

    /// Detaches every program and waits until the last one that runs has ended: from then on the rings and the
    /// counters stand still.
    pub(crate) fn detach(&mut self) {
        // The events first: as long as they come, what they belong to is followed.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
        wait_for_running_programs();
    }

    /// Whether maps can be used with the capabilities of this thread: one is read.
    pub(crate) fn can_use_maps(&self) -> bool {
        self.stats.get(&0, 0).is_ok()
    }

    /// Adds the counters up.
    pub(crate) fn counters(&self) -> anyhow::Result<Counters> {
        let mut counters = Counters::default();
        for hooked in &self.attached {
            let Hooked { program, .. } = hooked;
            let per_cpu = self
                .stats
                .get(&(*program as u32), 0)
                .with_context(|| format!("reading the counters of {}", program.name()))?;
            let loaded = self.ebpf.program(hooked.name()).context("a program is gone")?;
            let is_hook = self.kind.is_some_and(|kind| hooks::is_hook_of(*program, kind));
            counters.add(
                *program,
                is_hook,
                per_cpu.iter().map(|state| &state.stats),
                stats::recursion_misses(loaded.fd()?),
            );
        }
        Ok(counters)
    }
}

/// What the programs are told, kept here because the loader borrows it.
struct Globals {
    offsets: Vec<u32>,
    tracer_pid: u32,
    tracer_pid_ns: u32,
    host_mnt_ns: u32,
    trace_exec: u32,
    trace_host: u32,
    failed_only: u32,
    trust_rootless: u32,
    typed_tasks: u32,
    wake_bytes: u64,
    uring_request_argument: u32,
    uring_result_argument: u32,
    uring_error_argument: u32,
}

impl Globals {
    fn new(options: &Options<'_>, types: &KernelTypes, uring: Option<&Uring>) -> anyhow::Result<Self> {
        Ok(Self {
            offsets: offsets::resolve(types)?,
            typed_tasks: u32::from(types.has_function("bpf_get_current_task_btf")),
            tracer_pid: std::process::id(),
            tracer_pid_ns: nested_pid_ns()?,
            host_mnt_ns: host_root::mount_namespace().and_then(|inode| inode.try_into().ok()).unwrap_or(0),
            trace_exec: u32::from(options.kind == Some(Kind::Exec)),
            trace_host: u32::from(options.host),
            failed_only: u32::from(options.failed),
            trust_rootless: u32::from(options.trust_rootless),
            wake_bytes: wake_bytes(options.buffer_size),
            uring_request_argument: uring.map_or(0, |uring| uring.request_argument),
            uring_result_argument: uring.map_or(0, |uring| uring.has_result.into()),
            uring_error_argument: uring.map_or(0, |uring| uring.error_argument),
        })
    }
}

/// How many buffers for records each CPU has.
#[derive(Debug, PartialEq, Eq)]
struct Buffers {
    long: u32,
    short: u32,
}

impl Buffers {
    /// What these programs take. The kernel makes no map without an entry.
    fn of<'a>(programs: impl Iterator<Item = &'a Hooked>) -> Self {
        let mut buffers = Self { long: 1, short: 1 };
        for scratch in programs.filter_map(|hooked| hooked.program.scratch()) {
            let (entries, index) = match scratch {
                Scratch::Long(index) => (&mut buffers.long, index),
                Scratch::Short(index) => (&mut buffers.short, index),
            };
            *entries = (*entries).max(index + 1);
        }
        buffers
    }
}

/// What each CPU may put into the event ring before it wakes the reader: a quarter of it for all together.
fn wake_bytes(buffer_size: u32) -> u64 {
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus.get().into());
    (u64::from(buffer_size) / 4 / cpus).min(WAKE_BYTES_MAX)
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

/// The kernel's types took some tens of megabytes, which glibc would keep for the next who wants them.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches nothing but what the allocator has to itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The programs run within RCU read-side sections or with preemption off; this call returns when all such
/// sections that it found running have ended. Detaching alone does not wait.
pub(crate) fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: takes numbers, touches no memory of ours.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if failed {
        // Refused on kernels with nohz_full CPUs. No program runs for as long as this.
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The maps were refused.
fn explain_maps(error: EbpfError) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let is_eperm = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
    };
    if error.chain().any(is_eperm) {
        if let Some(reason) = features::memory_limit() {
            return Unsupported::new("not permitted: the kernel refuses BPF maps", reason).into();
        }
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
    if reads_of_kernel_are_forbidden(&log) {
        return features::locked_down().into();
    }
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    anyhow!("loading the BPF program {program} for {hook}: {io_error}; the end of the verifier's log:\n{end}")
}

/// Whether a program was refused for reading the kernel's memory, in the verifier's words, old and new. The helpers for it
/// are there on all kernels, and withheld by lockdown alone where the capabilities suffice, which are looked at before.
/// The loader takes the older helper where it finds that the newer one is refused.
fn reads_of_kernel_are_forbidden(log: &str) -> bool {
    const REFUSALS: [&str; 2] = ["unknown func ", "cannot use helper "];
    let refused = |line: &str| {
        let helper = REFUSALS.iter().find_map(|words| Some(line.split_once(words)?.1))?;
        Some(helper.starts_with("bpf_probe_read") && !helper.starts_with("bpf_probe_read_user"))
    };
    log.lines().filter_map(refused).any(|is_read| is_read)
}

/// What sees the opens of io_uring, which most programs do without: or why there is no such thing.
type UringPrograms = Result<Vec<Hooked>, String>;

/// Loads what tracing takes, several programs at once: the verifier is what takes the time of a start. Returns how calls
/// are seen.
fn load_programs(
    ebpf: &mut Ebpf,
    ways: &mut Ways,
    uring: Option<&Uring>,
    btf: &Btf,
) -> anyhow::Result<(Way, UringPrograms)> {
    let mut programs: Programs<'_> = ebpf.programs_mut().collect();
    thread::scope(|scope| {
        let lifecycle = start_loading(scope, &mut programs, &LIFECYCLE, btf);
        let of_uring = uring.map(|uring| start_loading(scope, &mut programs, &uring.programs, btf));
        let way =
            ways.first(|way| finish_loading(start_loading(scope, &mut programs, &way.programs, btf)?))?;
        let loaded = match of_uring {
            Some(loading) => loading.and_then(finish_loading).map_err(|error| format!("{error:#}")),
            None => {
                Err("this kernel's tracepoints do not tell the requests of io_uring apart (Linux 5.18)"
                    .into())
            }
        };
        let uring = loaded.map(|()| uring.map(|uring| uring.programs.clone()).unwrap_or_default());
        finish_loading(lifecycle?)?;
        Ok((way, uring))
    })
}

type Programs<'e> = std::collections::HashMap<&'e str, &'e mut aya::programs::Program>;
type Loading<'scope> = Vec<thread::ScopedJoinHandle<'scope, anyhow::Result<()>>>;

/// Starts to load programs, each on a thread of its own.
fn start_loading<'scope, 'env: 'scope>(
    scope: &'scope thread::Scope<'scope, 'env>,
    programs: &mut Programs<'env>,
    hooked: &[Hooked],
    btf: &'env Btf,
) -> anyhow::Result<Loading<'scope>> {
    let start = |hooked: &Hooked| {
        let (name, target) = (hooked.name(), hooked.target);
        let program = programs.remove(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
        Ok(scope
            .spawn(move || hooks::load(program, target, btf).map_err(|error| explain(error, name, target))))
    };
    hooked.iter().map(start).collect()
}

fn finish_loading(loading: Loading<'_>) -> anyhow::Result<()> {
    let finish = |thread: thread::ScopedJoinHandle<'_, _>| {
        thread.join().unwrap_or_else(|_| Err(anyhow!("loading a BPF program has panicked")))
    };
    // All of them are waited for, whatever comes of the first.
    let results: Vec<anyhow::Result<()>> = loading.into_iter().map(finish).collect();
    results.into_iter().collect()
}

/// A map that nobody uses once the programs are attached. It stays with them: others may be loaded until then.
pub(crate) fn borrow<'e, M>(ebpf: &'e mut Ebpf, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<&'e mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("using the BPF map {name}"))
}

fn take_ring(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<MappedRing> {
    MappedRing::new(take_untyped(ebpf, name)?, name)
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    M::try_from(take_untyped(ebpf, name)?).with_context(|| format!("using the BPF map {name}"))
}

fn take_untyped(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))
}

#[cfg(test)]
mod tests {
    use tracer_common::stats::Program;

    use super::*;

    fn ways(kind: Option<Kind>, forced: Option<Hook>) -> Ways {
        Ways::new(kind, forced, Preemption::AtTracepoint, |_| true)
    }

    #[test]
    fn buffers_are_those_of_programs_that_can_be_loaded() {
        let buffers = |kind, forced| Buffers::of(ways(kind, forced).programs().chain(&LIFECYCLE));
        assert_eq!(buffers(Some(Kind::Open), None), Buffers { long: 1, short: 6 });
        assert_eq!(buffers(Some(Kind::Open), Some(Hook::SysExit)), Buffers { long: 1, short: 1 });
        assert_eq!(buffers(Some(Kind::Exec), None), Buffers { long: 2, short: 1 });
    }

    /// Two programs of one buffer would write into each other's records.
    #[test]
    fn programs_that_are_loaded_together_have_buffers_of_their_own() {
        for kind in [Some(Kind::Open), Some(Kind::Exec), None] {
            for forced in [Some(Hook::Fexit), Some(Hook::SysExit)] {
                let ways = ways(kind, forced);
                let uring = [Program::UringSubmit];
                let mut programs: Vec<Program> =
                    ways.programs().chain(&LIFECYCLE).map(|hooked| hooked.program).chain(uring).collect();
                // The same program at an event or at the tracepoint.
                programs.sort_by_key(|program| *program as u32);
                programs.dedup();
                let mut taken: Vec<Scratch> =
                    programs.iter().filter_map(|program| program.scratch()).collect();
                let all = taken.len();
                taken.dedup();
                let unique = taken.iter().enumerate().all(|(n, one)| !taken[..n].contains(one));
                assert!(unique && taken.len() == all, "{programs:?}: {taken:?}");
            }
        }
    }

    #[test]
    fn helper_that_lockdown_withholds_is_recognised() {
        for line in [
            "unknown func bpf_probe_read_kernel#113",
            "program of this type cannot use helper bpf_probe_read_kernel#113",
            "program of this type cannot use helper bpf_probe_read_kernel_str#115",
            "program of this type cannot use helper bpf_probe_read#4",
        ] {
            assert!(reads_of_kernel_are_forbidden(&format!(
                "12: (85) call 113\n{line}\nprocessed 12 insns\n"
            )));
        }
        for line in [
            "85: (85) call bpf_probe_read_kernel#113",
            "unknown func bpf_task_pt_regs#175",
            "program of this type cannot use helper bpf_probe_read_user#112",
        ] {
            assert!(!reads_of_kernel_are_forbidden(line), "{line}");
        }
    }
}
