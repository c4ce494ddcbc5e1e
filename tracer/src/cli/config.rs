//! From arguments to what a run needs, checked.

use rustix::termios::tcgetwinsize;

use super::args::{SelectionArgs, TraceArgs};
use crate::{
    containers::{Pattern, Selection},
    error::Usage,
    observe::Scope,
    render::{Layout, Renderer, Table},
    runtime::RUNTIMES,
    trace::{Config, EventFilter, TRACERS, Tracer},
};

/// The kernel's limits of a ring buffer: a page at least, and what fits into 32 bits, twice mapped.
const BUFFER_SIZES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;
/// A runtime's name is a file name.
const NAME_MAX: usize = 255;

pub(super) fn resolve(args: TraceArgs, log_programs: bool) -> Result<Config, Usage> {
    let tracer = TRACERS
        .into_iter()
        .find(|tracer| tracer.name() == args.kind)
        .ok_or_else(|| Usage(format!("there is nothing called {:?} to trace", args.kind)))?;
    let node = args.node.unwrap_or_else(host_name);
    Ok(Config {
        tracer,
        scope: Scope {
            selection: selection(&args.selection)?,
            runtimes: runtimes(&args.runtime_name).map_err(option("--runtime-name"))?,
            trust_rootless: false,
        },
        filter: EventFilter {
            pids: Pattern::parse(&args.pid).map_err(option("--pid"))?,
            uids: Pattern::parse(&args.uid).map_err(option("--uid"))?,
            comms: Pattern::parse(&args.comm).map_err(option("--comm"))?,
        },
        host: args.host,
        failed: args.failed,
        renderer: renderer(&args.output, tracer, &node, !args.no_headers).map_err(option("--output"))?,
        node,
        timeout: args.timeout,
        max_events: args.max_events,
        buffer_size: buffer_size(args.buffer_size.as_u64()).map_err(option("--buffer-size"))?,
        log_programs,
    })
}

/// Puts an option's name before what is wrong with its value.
fn option(name: &'static str) -> impl Fn(String) -> Usage {
    move |problem| Usage(format!("{name}: {problem}"))
}

fn selection(args: &SelectionArgs) -> Result<Selection, Usage> {
    let namespaces = if args.all_namespaces { &[][..] } else { &args.namespace };
    Ok(Selection {
        namespaces: Pattern::parse(namespaces).map_err(option("--namespace"))?,
        pods: Pattern::parse(&args.pod).map_err(option("--pod"))?,
        containers: Pattern::parse(&args.container).map_err(option("--container"))?,
    })
}

fn renderer(output: &str, tracer: &dyn Tracer, node: &str, header: bool) -> Result<Renderer, String> {
    let table =
        |layout: &Layout| Table::new(layout, tracer, node, terminal_width(), header).map(Renderer::Table);
    match output {
        "columns" => table(&Layout::Narrow),
        "wide" => table(&Layout::Wide),
        "json" => Ok(Renderer::Json),
        "jsonpretty" => Ok(Renderer::JsonPretty),
        "yaml" => Ok(Renderer::Yaml),
        _ => match output.strip_prefix("custom-columns=") {
            Some(names) => table(&Layout::Custom(names.split(',').map(str::to_owned).collect())),
            None => Err(format!(
                "{output:?} is none of columns, wide, json, jsonpretty, yaml, custom-columns=A,B"
            )),
        },
    }
}

fn terminal_width() -> Option<usize> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    // A terminal that does not know its size says 0.
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
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

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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

    #[test]
    fn an_unknown_output_is_an_error_that_lists_all() {
        let error = renderer("xml", TRACERS[0], "n", true).unwrap_err();
        assert!(error.contains("\"xml\"") && error.contains("custom-columns"), "{error}");
    }
}
