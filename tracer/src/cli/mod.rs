//! The command line: from arguments to a run, and from its result to an exit code.

pub(crate) mod args;
pub(crate) mod config;
mod doctor;
pub(crate) mod generate;
pub(crate) mod help;
pub(crate) mod kinds;
pub(crate) mod output_help;
mod restrict;

use std::{
    env,
    fmt::{self, Debug},
    io,
    process::ExitCode,
};

use clap::Parser;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    fmt::format::{Writer, debug_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    error::{FAILURE, UNSUPPORTED, USAGE, Unsupported, Usage, chain},
    output::ListOf,
    run::{agent, list, trace},
    sanitize,
    sys::{capabilities, file_helper, log_limit, log_limit::Limited, stderr, stderr::status},
};
use args::{Args, Command, LogArgs};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // If this fails, whatever needs a missing capability reports it.
    let _ = capabilities::raise();
    if let Some(code) = file_helper::main() {
        return code;
    }
    let args = parse::<Args>();
    stderr::start();
    start_log(args.log);
    finish(run(args))
}

/// The arguments of this process. Wrong ones end it, as `--help` does.
pub(crate) fn parse<A: Parser>() -> A {
    let command = kinds::with_options_of_kinds(help::definition::<A>(), env::args_os());
    A::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// The exit code for this result. Reports an error on stderr.
pub(crate) fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        status(&chain(error.as_ref()));
        ExitCode::from(exit_code(&error))
    });
    log_limit::finish();
    stderr::finish();
    code
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    if capabilities::exceed_the_callers() {
        restrict::check(&args.command)?;
    }
    let has_colors = config::has_colors(&io::stdout());
    match args.command {
        Command::Trace(trace) => {
            if output_help::print_if_requested(&trace.args, ListOf::Node)? {
                return Ok(ExitCode::SUCCESS);
            }
            trace::run(config::trace(&trace.args, &trace.node, args.log.is_debug())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ListContainers(list) => {
            if output_help::print_if_requested(&list.args, ListOf::Node)? {
                return Ok(ExitCode::SUCCESS);
            }
            list::run(config::list(&list.args, &list.node, args.log.is_debug())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Agent(agent) => {
            doctor::run(&mut io::stdout().lock(), has_colors)?;
            agent::run(agent.lease)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor => {
            let well = doctor::run(&mut io::stdout().lock(), has_colors)?;
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(UNSUPPORTED) })
        }
        Command::Generate(generate) => generate.run(help::definition::<Args>()),
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Unsupported>() {
        UNSUPPORTED
    } else if error.is::<Usage>() {
        USAGE
    } else {
        FAILURE
    }
}

/// Starts logging to stderr.
pub(crate) fn start_log(log: LogArgs) {
    let directives = match (log.quiet, log.verbose) {
        // kube logs every error response, which is reported by the caller. kube-runtime logs it again.
        (true, _) => "error,kube_client::client=off,kube_runtime=off",
        // aya cannot parse versions such as "Debian 7.3~rc4-1" and warns for each map and program. It only uses them to
        // decide whether to name maps and programs.
        (false, 0) => "warn,kube_client::client=off,kube_runtime=off,aya::util=off",
        (false, 1) => "warn,kube_client::client=off,kube_runtime=off,aya::util=off,tracer=info",
        // Debug messages of the libraries help only their authors.
        (false, 2) => {
            "warn,kube_client::client=off,kube_runtime=off,aya::util=off,tracer=debug,tracer_ebpf=debug"
        }
        (false, _) => "debug",
    };
    // RUST_LOG of a user with fewer privileges than this process is ignored.
    let of_user =
        if capabilities::exceed_the_callers() { None } else { EnvFilter::try_from_default_env().ok() };
    let filter = of_user.unwrap_or_else(|| EnvFilter::new(directives));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| stderr::Log)
        .with_ansi(config::has_colors(&io::stderr()))
        .with_target(false)
        .log_internal_errors(false)
        .fmt_fields(debug_fn(write_field))
        .without_time();
    tracing_subscriber::registry().with(lines).with(Limited).with(filter).init();
}

/// Writes a field of a log line: the message, or a value with its name. Libraries quote untrusted text.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let text = sanitize::message(&format!("{value:?}"));
    match field.name() {
        "message" => writer.write_str(&text),
        // Of the crate `log`: the location.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, " {name}={text}"),
    }
}
