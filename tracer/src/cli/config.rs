//! From arguments to what a run needs, checked.

use std::{
    env,
    fmt::Display,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::ColorChoice;
use tracer_common::kinds::Kind as Declaration;

use crate::{
    bpf::{EventFilter, Hook},
    cli::args::{HOOK_AUTO, ListArgs, NodeArgs, OutputArgs, RuntimeArgs, SelectionArgs, TraceArgs},
    cri,
    discovery::{RUNTIMES, Runtimes},
    error::Usage,
    frames,
    kinds::Kinds,
    model::{
        LabelSelector, Pattern, Selection,
        name::{Name, PodName},
        pattern::number,
    },
    output::{COLUMNS, ContainerRenderer, EventRenderer, Format, ListOf, Look},
    run::{limits::Limits, list, observer::Scope, trace},
    sys::{capabilities, stdout},
};

/// The kernel's limits of a ring buffer: a page at least, and what fits into 32 bits, twice mapped.
const BUFFER_SIZES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;
/// A runtime's name is a file name.
const NAME_MAX: usize = 255;

/// What a run on a node needs.
pub(crate) fn trace(args: &TraceArgs, on: &NodeArgs, log_programs: bool) -> Result<trace::Config, Usage> {
    let kinds = kinds(args)?;
    let node = node(on);
    let renderer = if frames(&args.output).map_err(option("--output"))? {
        None
    } else {
        Some(renderer(&args.output, args.timestamps, &kinds, &node).map_err(option("--output"))?)
    };
    Ok(trace::Config {
        scope: scope(&args.selection, &args.runtimes)?,
        filter: EventFilter {
            pids: pids(&args.filter.pid).map_err(option("--pid"))?,
            uids: Pattern::parse(&args.filter.uid, number).map_err(option("--uid"))?,
            comms: Pattern::parse(&args.filter.comm, Name::any).map_err(option("--comm"))?,
        },
        hook: hook(&args.hook, &kinds)?,
        kinds,
        host: args.filter.host,
        failed: args.filter.failed,
        renderer,
        node,
        limits: limits(&args.output, on),
        max_events: args.max_events,
        buffer_size: buffer_size(args.buffer_size.as_u64()).map_err(option("--buffer-size"))?,
        log_programs,
    })
}

/// The kinds to trace.
pub(crate) fn kinds(args: &TraceArgs) -> Result<Arc<Kinds>, Usage> {
    Kinds::by_name(&args.kind).ok_or_else(|| Usage(format!("unknown kind in {:?}", args.kind.join(","))))
}

/// The name of the format that `kubectl tracer` uses, followed by the highest version of the protocol that it reads.
pub(crate) const FRAMES: &str = "frames=";

/// Whether the output is to be frames. An error if the reader reads older versions only.
fn frames(args: &OutputArgs) -> Result<bool, String> {
    let Some(version) = args.output.strip_prefix(FRAMES) else { return Ok(false) };
    match version.parse::<u8>() {
        Ok(version) if version >= frames::VERSION => Ok(true),
        _ => Err(format!(
            "this tracer ({}) sends frames of version {}, and the client reads version {version} at the most",
            env!("CARGO_PKG_VERSION"),
            frames::VERSION
        )),
    }
}

/// Likewise.
pub(crate) fn list(args: &ListArgs, on: &NodeArgs, log_programs: bool) -> Result<list::Config, Usage> {
    let output = &args.output.output;
    let node = node(on);
    let renderer = if frames(&args.output).map_err(option("--output"))? {
        None
    } else {
        let renderer = ContainerRenderer::new(ListOf::Node, output, &node, look(&args.output), args.watch);
        Some(renderer.map_err(option("--output"))?)
    };
    Ok(list::Config {
        renderer,
        node,
        listing: match (args.watch, args.failed) {
            (false, _) => list::Listing::Present,
            (true, false) => list::Listing::Changes,
            (true, true) => list::Listing::Failures,
        },
        limits: limits(&args.output, on),
        scope: scope(&args.selection, &args.runtimes)?,
        // The usual columns do not show them.
        report_missing_labels: args.runtimes.runtime_endpoint.as_deref() != Some(cri::NONE)
            && (output != COLUMNS || !args.selection.selector.is_empty()),
        log_programs,
    })
}

const fn limits(args: &OutputArgs, on: &NodeArgs) -> Limits {
    Limits { timeout: args.timeout, lease: on.lease.lease }
}

/// Where an agent's files are that say what its users may not: more state directories of runtimes, one a line, and the
/// engine's socket. No user of the agent can write them, as he can set its environment.
const AGENT: &str = "/etc/tracer";
const RUNTIME_ROOT: &str = "runtime-root";
const RUNTIME_ENDPOINT: &str = "runtime-endpoint";

/// What the administrator says in the file of that name; empty where he does not, and on a node itself.
fn of_agent(name: &str) -> String {
    let text =
        capabilities::exceed_the_callers().then(|| fs::read_to_string(Path::new(AGENT).join(name)).ok());
    text.flatten().unwrap_or_default()
}

fn scope(selected: &SelectionArgs, args: &RuntimeArgs) -> Result<Scope, Usage> {
    let (roots, endpoint) = (of_agent(RUNTIME_ROOT), of_agent(RUNTIME_ENDPOINT));
    let roots = roots.lines().map(PathBuf::from).chain(args.runtime_root.iter().cloned()).collect();
    let endpoint = Some(endpoint.trim()).filter(|endpoint| !endpoint.is_empty());
    let endpoint = args.runtime_endpoint.as_deref().or(endpoint);
    Ok(Scope {
        selection: selection(selected)?,
        options: selection_options(selected, namespaces(selected)),
        runtimes: Runtimes {
            names: runtimes(&args.runtime_name).map_err(option("--runtime-name"))?,
            state_roots: state_roots(roots).map_err(option("--runtime-root"))?,
            trust_rootless: args.trust_rootless,
        },
        sockets: cri::endpoints(endpoint).map_err(option("--runtime-endpoint"))?,
        listen: args.runtime_events,
    })
}

/// Puts an option's name before what is wrong with its value.
fn option<E: Display>(name: &'static str) -> impl Fn(E) -> Usage {
    move |problem| Usage(format!("{name}: {problem}"))
}

/// The highest process id of any kernel: below `PID_MAX_LIMIT` (include/linux/threads.h).
const PID_MAX: u32 = (1 << 22) - 1;

fn pids(values: &[String]) -> Result<Pattern<u32>, String> {
    let pattern = Pattern::parse(values, number).map_err(|error| error.to_string())?;
    match pattern.wanted().iter().chain(pattern.unwanted()).find(|pid| !(1..=PID_MAX).contains(*pid)) {
        Some(pid) => Err(format!("{pid} is not a process id: they are from 1 to {PID_MAX}")),
        None => Ok(pattern),
    }
}

/// The options that select containers, as given; empty if there are none.
pub(crate) fn selection_options(args: &SelectionArgs, namespaces: &[String]) -> String {
    let SelectionArgs { namespace: _, all_namespaces: _, pod, container, selector } = args;
    let lists = [("-n", namespaces), ("-p", pod), ("-c", container), ("-l", selector)];
    let given = lists.into_iter().filter(|(_, values)| !values.is_empty());
    given.map(|(option, values)| format!("{option} {}", values.join(","))).collect::<Vec<_>>().join(" ")
}

/// The selected namespaces: none means all.
fn namespaces(args: &SelectionArgs) -> &[String] {
    if args.all_namespaces { &[] } else { &args.namespace }
}

fn selection(args: &SelectionArgs) -> Result<Selection, Usage> {
    let namespaces = namespaces(args);
    Ok(Selection {
        namespaces: Pattern::parse(namespaces, Name::of_namespace).map_err(option("--namespace"))?,
        pods: Pattern::parse(&args.pod, PodName::parse).map_err(option("--pod"))?,
        containers: Pattern::parse(&args.container, Name::of_container).map_err(option("--container"))?,
        labels: LabelSelector::parse_all(&args.selector).map_err(option("--selector"))?,
    })
}

/// Not every kind can be traced at every hook.
fn hook(name: &str, kinds: &Kinds) -> Result<Option<Hook>, Usage> {
    if name == HOOK_AUTO {
        return Ok(None);
    }
    let hook = name.parse().map_err(option("--hook"))?;
    let is_elsewhere = |kind: &&Declaration| !kind.calls.is_empty() && kind.fexit.is_empty();
    match kinds.declared().iter().copied().find(is_elsewhere) {
        Some(kind) if hook == Hook::Fexit => {
            Err(Usage(format!("--hook: {} is traced at {} only", kind.name, Hook::SysExit)))
        }
        _ => Ok(Some(hook)),
    }
}

pub(crate) fn renderer(
    args: &OutputArgs,
    timestamps: bool,
    kinds: &Arc<Kinds>,
    node: &str,
) -> Result<EventRenderer, String> {
    let look = Look { timestamps, ..look(args) };
    EventRenderer::new(&Format::parse(&args.output)?, kinds, node, look)
}

/// How a table looks on standard output.
pub(crate) fn look(args: &OutputArgs) -> Look {
    Look {
        terminal: stdout::terminal_width(),
        header: !args.no_headers,
        color: match args.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => has_colors(&io::stdout()),
        },
        timestamps: false,
    }
}

/// Whether a stream is a terminal that may be shown colours (<https://no-color.org>).
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !is_set("NO_COLOR")
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn buffer_size(bytes: u64) -> Result<u32, String> {
    bytes
        .checked_next_power_of_two()
        .filter(|size| BUFFER_SIZES.contains(size) && bytes > 0)
        .and_then(|size| u32::try_from(size).ok())
        .ok_or_else(|| format!("{bytes} bytes are not between 4KiB and 1GiB"))
}

fn runtimes(further: &[String]) -> Result<Vec<String>, String> {
    for name in further {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', '\0']) {
            return Err(format!("{name:?} is not a file name; give it without its directory"));
        }
    }
    Ok(RUNTIMES.iter().map(ToString::to_string).chain(further.iter().cloned()).collect())
}

fn state_roots(further: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    match further.iter().find(|root| !root.is_absolute()) {
        Some(relative) => Err(format!("{} is not an absolute path", relative.display())),
        None => Ok(further),
    }
}

fn node(args: &NodeArgs) -> String {
    let host_name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    args.node.clone().unwrap_or_else(host_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(buffer_size(8 << 20), Ok(8 << 20));
        assert_eq!(buffer_size(5000), Ok(8192));
        assert_eq!(buffer_size(1), Err("1 bytes are not between 4KiB and 1GiB".into()));
        for bytes in [0, 2047, (1 << 30) + 1, u64::MAX] {
            assert!(buffer_size(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_path_is_no_runtime_name() {
        assert!(runtimes(&["/usr/bin/runc".into()]).unwrap_err().contains("/usr/bin/runc"));
        assert!(runtimes(&["my-runc".into()]).unwrap().contains(&"my-runc".to_owned()));
    }
}
