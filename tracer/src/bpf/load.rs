//! Loading the programs, attaching them, and taking them away again.

use std::{path::Path, thread};

use anyhow::{Context as _, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracer_common::{
    Comm, comm_of,
    container::{RESTORER, RUNTIME},
    kinds::{open, schema::Kind},
    programs::{SYSTEM_CALLS, traced_call},
    stats::State,
};
use tracing::{debug, info, warn};

use crate::{
    bpf::{
        ContainerMaps, EventFilter, EventRing, FreeSlots, Hook, MappedRing,
        btf::{KERNEL_BTF, KernelTypes},
        filter::KernelFilter,
        freeze::freeze_maps,
        hooks::{self, Link},
        offsets,
        preemption::{Functions, Object},
        programs::{Hooked, Numbering, at_tracepoints, lifecycle},
        refusal, sizes,
        stats::{self, Counters},
        uring::Uring,
        ways::{Preemption, Taken, Way, Ways},
    },
    sys::{host_root, process_handle::INITIAL_PID_NS},
};

/// The file name of the program that runtimes restore containers with.
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
    /// The traced kinds; none to follow containers only.
    pub(crate) kinds: Vec<&'static Kind>,
    /// Size of the event ring in bytes: a power of two, a page at least.
    pub(crate) buffer_size: u32,
    /// Whether events of host processes are selected.
    pub(crate) host: bool,
    /// Whether failed events only are selected.
    pub(crate) failed: bool,
    /// What else selects events.
    pub(crate) filter: &'a EventFilter,
    /// Where system calls are traced; `None` for the best way that this kernel has.
    pub(crate) hook: Option<Hook>,
    /// File names of container runtimes.
    pub(crate) runtimes: &'a [String],
    /// Whether users' runtimes are trusted.
    pub(crate) trust_rootless: bool,
    /// Whether the programs log.
    pub(crate) log: bool,
}

/// The programs of a run, in the order in which they are attached. Tracepoints run their programs in that order.
#[derive(Debug)]
struct Plan {
    /// Programs that have to run before those which follow processes.
    first: Vec<Hooked>,
    /// Programs that follow processes: attached before what depends on them.
    lifecycle: [Hooked; 3],
    /// The programs of io_uring.
    uring: Option<Uring>,
    /// The other programs at tracepoints.
    last: Vec<Hooked>,
    /// Whether opens are traced.
    traces_opens: bool,
}

impl Plan {
    fn new(kinds: &[&'static Kind], types: &KernelTypes) -> Self {
        Self {
            first: at_tracepoints(kinds, true),
            lifecycle: lifecycle(),
            uring: Uring::of_kernel(kinds, types),
            last: at_tracepoints(kinds, false),
            traces_opens: kinds.iter().any(|kind| kind.number == open::NUMBER),
        }
    }

    /// The programs without which there is no run, besides a way to see system calls.
    fn required(&self) -> impl Iterator<Item = &Hooked> {
        self.first.iter().chain(&self.lifecycle).chain(&self.last)
    }

    fn of_uring(&self) -> &[Hooked] {
        self.uring.as_ref().map_or(&[], |uring| &uring.programs)
    }
}

/// The loaded programs with their maps. Dropped, or its process killed, it leaves nothing in the kernel.
pub(crate) struct Bpf {
    ebpf: Ebpf,
    kinds: Vec<&'static Kind>,
    plan: Plan,
    /// How system calls are seen: loaded, and attached unless that is refused.
    way: Way,
    /// What there is to try then.
    ways: Ways,
    /// The kernel's types, which programs are loaded with; `None` once all are attached.
    btf: Option<Btf>,
    /// Why opens through io_uring are not traced, if they are to be.
    without_uring: Option<String>,
    numbering: Numbering,
    /// Programs that have been attached, or were.
    attached: Vec<Hooked>,
    links: Vec<Link>,
    stats: PerCpuArray<MapData, State>,
}

/// The maps that the rest of `tracer` reads and writes.
pub(crate) struct Maps {
    /// Traced events.
    pub(crate) events: EventRing,
    /// Lifecycle records.
    pub(crate) lifecycle: MappedRing,
    /// What is known and decided about containers.
    pub(crate) containers: ContainerMaps,
}

impl Bpf {
    /// Loads what tracing `options.kinds` needs; nothing is attached yet.
    pub(crate) fn load(options: &Options<'_>) -> anyhow::Result<(Self, Maps)> {
        let types = KernelTypes::read(Path::new(KERNEL_BTF))?;
        let btf = types.for_loader().with_context(|| format!("parsing {KERNEL_BTF}"))?;
        let kinds = options.kinds.clone();
        let plan = Plan::new(&kinds, &types);
        let at_functions = Hooked::all_at_functions(&kinds, |function| types.has_function(function));
        let mut ways = Ways::new(&kinds, options.hook, Preemption::of_kernel(), at_functions);
        let numbering = Numbering::new(plan.required().chain(plan.of_uring()), ways.programs(), &kinds);
        let offsets = offsets::resolve(&types)?;
        let globals = Globals::new(options, &types, plan.uring.as_ref(), &numbering)?;
        let filter = KernelFilter::new(options.filter);
        let object = Object::new(OBJECT, Functions::of_kernel(&types).as_ref())?;
        drop(types);
        lift_memlock_limit();
        let requests = if plan.uring.is_some() { sizes::REQUESTS } else { 1 };
        let log_level = u8::from(options.log) * aya_log::Level::Debug as u8;
        let system_calls = system_calls(&kinds);
        let mut loader = EbpfLoader::new();
        for (global, offset) in &offsets {
            loader.override_global(global, offset, true);
        }
        for (global, indices) in &numbering.globals {
            loader.override_global(global, indices, true);
        }
        for (global, value) in &globals.numbers {
            loader.override_global(global, value, true);
        }
        let mut ebpf = loader
            .override_global("SYSTEM_CALLS", &system_calls, true)
            .override_global("WAKE_BYTES", &globals.wake_bytes, true)
            .override_global("FILTER_PIDS", &filter.pids.mode, true)
            .override_global("FILTER_UIDS", &filter.uids.mode, true)
            .override_global("FILTER_COMMS", &filter.comms.mode, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("EVENTS", options.buffer_size)
            .map_max_entries("AYA_LOGS", sizes::log_size(options.log))
            .map_max_entries("REQUESTS", requests)
            .map_max_entries("REPORTS", 2 * requests)
            .map_max_entries("PROCESSES", sizes::processes_max())
            .map_max_entries("ADOPTEES", sizes::adoptees_max())
            .map_max_entries("EVIDENCE", sizes::adoptees_max())
            .map_max_entries("STATE", numbering.counts.states)
            .map_max_entries("SCRATCH", numbering.counts.long)
            .map_max_entries("SHORT_SCRATCH", numbering.counts.short)
            .map_max_entries("SLOTS", sizes::SLOTS)
            .map_max_entries("DECISIONS", sizes::SLOTS)
            .map_max_entries("KEPT_SLOTS", sizes::KEPT_SLOTS)
            .map_max_entries("FREE_SLOTS", sizes::SLOTS - sizes::KEPT_SLOTS)
            .map_max_entries("PIDS", filter.pids.max_entries())
            .map_max_entries("UIDS", filter.uids.max_entries())
            .map_max_entries("COMMS", filter.comms.max_entries())
            .load(object.bytes())
            .map_err(refusal::of_maps)?;

        let (way, without_uring) = load_programs(&mut ebpf, &plan, &mut ways, &btf)?;
        filter.pids.fill(&mut ebpf, "PIDS")?;
        filter.uids.fill(&mut ebpf, "UIDS")?;
        filter.comms.fill(&mut ebpf, "COMMS")?;
        fill_runtimes(&mut ebpf, options.runtimes)?;
        freeze_maps(&ebpf)?;
        let maps = take_maps(&mut ebpf)?;
        let stats = take(&mut ebpf, "STATE")?;
        let (attached, links) = (Vec::new(), Vec::new());
        let btf = Some(btf);
        let bpf =
            Self { ebpf, kinds, plan, way, ways, btf, without_uring, numbering, attached, links, stats };
        Ok((bpf, maps))
    }

    /// The object, for its log.
    pub(crate) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Attaches every program. On an error those that were attached go with `self`.
    ///
    /// Traced events come last, when the containers that they belong to are already followed; but programs that have to run
    /// first at a tracepoint are attached first, and emit nothing until tracing begins.
    pub(crate) fn attach(&mut self) -> anyhow::Result<Taken> {
        let first = self.plan.first.clone();
        let lifecycle = self.plan.lifecycle.clone();
        let last = self.plan.last.clone();
        self.attach_all(&first)?;
        self.attach_all(&lifecycle)?;
        self.attach_way()?;
        self.attach_uring();
        self.attach_all(&last)?;
        self.btf = None;
        give_memory_back();
        let taken = Taken { without_uring: self.without_uring.clone(), ..self.ways.taken(&self.way) };
        self.log(&taken);
        Ok(taken)
    }

    /// Attaches what sees system calls: the best way that can be attached.
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

    /// Attaches what sees the opens of io_uring, if it is loaded.
    fn attach_uring(&mut self) {
        if self.without_uring.is_some() {
            return;
        }
        let before = (self.links.len(), self.attached.len());
        let programs = self.plan.of_uring().to_vec();
        if let Err(error) = self.attach_all(&programs) {
            // Some of them alone would report requests that never end.
            self.links.truncate(before.0);
            self.attached.truncate(before.1);
            self.without_uring = Some(format!("{error:#}"));
        }
    }

    fn load_way(&mut self, way: &Way) -> anyhow::Result<()> {
        let btf = self.btf.as_ref().context("the kernel's types are gone")?;
        let mut programs: Programs<'_> = self.ebpf.programs_mut().collect();
        thread::scope(|scope| finish_loading(start_loading(scope, &mut programs, &way.programs, btf)?))
    }

    fn attach_all(&mut self, hooked: &[Hooked]) -> anyhow::Result<()> {
        for hooked in hooked {
            let Hooked { name, target, .. } = hooked;
            let loaded =
                self.ebpf.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
            let link = hooks::attach(loaded)
                .with_context(|| format!("attaching the BPF program {name} to {target}"))?;
            self.links.push(link);
            self.attached.push(hooked.clone());
        }
        Ok(())
    }

    fn log(&self, taken: &Taken) {
        if !self.way.programs.is_empty() && !self.kinds.is_empty() {
            info!("system calls are traced at {}", taken.hook);
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
        // The events first: as long as they come, the processes they belong to are followed.
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
        let mut counters = Counters::new(self.kinds.len());
        for hooked in &self.attached {
            let loaded = self.ebpf.program(hooked.name).context("a program is gone")?;
            let skipped = stats::recursion_misses(loaded.fd()?);
            counters.add_skipped(hooked.first_kind(), hooked.follows_processes(), skipped);
            for share in hooked.shares(&self.kinds) {
                let Some(index) = self.numbering.state(&share) else { continue };
                let per_cpu = self
                    .stats
                    .get(&index, 0)
                    .with_context(|| format!("reading the counters of {}", hooked.name))?;
                let per_cpu = per_cpu.iter().map(|state| &state.stats);
                counters.add(hooked.name, share.kind, per_cpu, skipped);
            }
        }
        Ok(counters)
    }
}

/// Values of the programs' globals, kept here because the loader borrows them.
struct Globals {
    numbers: Vec<(&'static str, u32)>,
    wake_bytes: u64,
}

impl Globals {
    fn new(
        options: &Options<'_>,
        types: &KernelTypes,
        uring: Option<&Uring>,
        numbering: &Numbering,
    ) -> anyhow::Result<Self> {
        let host_mnt_ns = host_root::mount_namespace().and_then(|inode| inode.try_into().ok()).unwrap_or(0);
        let numbers = vec![
            ("TYPED_TASKS", u32::from(types.has_function("bpf_get_current_task_btf"))),
            ("TRACER_PID", std::process::id()),
            ("TRACER_PID_NS", nested_pid_ns()?),
            ("HOST_MNT_NS", host_mnt_ns),
            ("KINDS", options.kinds.iter().fold(0, |set, kind| set | kind.bit())),
            ("TRACE_HOST", u32::from(options.host)),
            ("FAILED_ONLY", u32::from(options.failed)),
            ("TRUST_ROOTLESS", u32::from(options.trust_rootless)),
            ("URING_REQUEST_ARGUMENT", uring.map_or(0, |uring| uring.request_argument)),
            ("URING_RESULT_ARGUMENT", uring.map_or(0, |uring| uring.has_result.into())),
            ("URING_ERROR_ARGUMENT", uring.map_or(0, |uring| uring.error_argument)),
        ];
        let sources = u32::try_from(options.kinds.len()).unwrap_or(u32::MAX);
        debug!("values of STATE on each CPU: {}", numbering.counts.states);
        Ok(Self { numbers, wake_bytes: sizes::wake_bytes(options.buffer_size, sources) })
    }
}

/// The system calls that the kinds trace, by number.
fn system_calls(kinds: &[&'static Kind]) -> [u32; SYSTEM_CALLS] {
    let mut entries = [0_u32; SYSTEM_CALLS];
    for kind in kinds {
        for call in kind.calls {
            let traced = u32::from(traced_call(kind.number, call.id));
            for (number, half) in call.numbers().into_iter().zip([traced, traced << 16]) {
                if let Some(entry) = entries.get_mut(usize::from(number)).filter(|_| number != 0) {
                    *entry |= half;
                }
            }
        }
    }
    entries
}

/// Enters the names of container runtimes, and of the program that restores containers.
fn fill_runtimes(ebpf: &mut Ebpf, names: &[String]) -> anyhow::Result<()> {
    let mut runtimes: HashMap<&mut MapData, Comm, u8> = borrow(ebpf, "RUNTIMES")?;
    let names = names.iter().map(|name| (name.as_str(), RUNTIME));
    for (name, what) in names.chain([(RESTORER_NAME, RESTORER)]) {
        runtimes
            .insert(&comm_of(name), &what, 0)
            .with_context(|| format!("naming {name} a container runtime"))?;
    }
    Ok(())
}

fn take_maps(ebpf: &mut Ebpf) -> anyhow::Result<Maps> {
    let mut free_slots = FreeSlots { kept: take(ebpf, "KEPT_SLOTS")?, shared: take(ebpf, "FREE_SLOTS")? };
    free_slots.fill().context("filling the maps KEPT_SLOTS and FREE_SLOTS")?;
    Ok(Maps {
        events: EventRing::new(take_ring(ebpf, "EVENTS")?, take(ebpf, "READER_SLEEPS")?),
        lifecycle: take_ring(ebpf, "LIFECYCLE")?,
        containers: ContainerMaps {
            decisions: take(ebpf, "DECISIONS")?,
            free_slots,
            slots: take(ebpf, "SLOTS")?,
            adoptees: take(ebpf, "ADOPTEES")?,
            epochs: take(ebpf, "EPOCHS")?,
            processes: take(ebpf, "PROCESSES")?,
            evidence: take(ebpf, "EVIDENCE")?,
        },
    })
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

/// Loads what tracing needs, several programs at once: the verifier takes most of the time of a start. Returns how system calls
/// are seen, and why opens through io_uring are not.
fn load_programs(
    ebpf: &mut Ebpf,
    plan: &Plan,
    ways: &mut Ways,
    btf: &Btf,
) -> anyhow::Result<(Way, Option<String>)> {
    let mut programs: Programs<'_> = ebpf.programs_mut().collect();
    thread::scope(|scope| {
        let required = start_loading(scope, &mut programs, plan.required(), btf);
        let of_uring =
            plan.uring.as_ref().map(|uring| start_loading(scope, &mut programs, &uring.programs, btf));
        let way =
            ways.first(|way| finish_loading(start_loading(scope, &mut programs, &way.programs, btf)?))?;
        let without_uring = match of_uring {
            Some(loading) => loading.and_then(finish_loading).err().map(|error| format!("{error:#}")),
            None if !plan.traces_opens => None,
            None => Some(
                "this kernel's tracepoints do not identify the requests of io_uring (Linux 5.18)".to_owned(),
            ),
        };
        finish_loading(required?)?;
        Ok((way, without_uring))
    })
}

type Programs<'e> = std::collections::HashMap<&'e str, &'e mut aya::programs::Program>;
type Loading<'scope> = Vec<thread::ScopedJoinHandle<'scope, anyhow::Result<()>>>;

/// Starts to load programs, each on a thread of its own.
fn start_loading<'scope, 'env: 'scope, 'h>(
    scope: &'scope thread::Scope<'scope, 'env>,
    programs: &mut Programs<'env>,
    hooked: impl IntoIterator<Item = &'h Hooked>,
    btf: &'env Btf,
) -> anyhow::Result<Loading<'scope>> {
    let start = |hooked: &Hooked| {
        let (name, target) = (hooked.name, hooked.target);
        let program = programs.remove(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
        Ok(scope.spawn(move || {
            hooks::load(program, target, btf).map_err(|error| refusal::of_program(error, name, target))
        }))
    };
    hooked.into_iter().map(start).collect()
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
