//! `cargo xtask demo`: a small container, traced. It shows what `tracer` is for in some seconds and leaves
//! nothing behind, however it ends.

mod bundle;
mod session;

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    build,
    process::{self, find, is_root},
    setup::{self, Scope, machine::static_busybox},
};
use session::Session;

const READY_WITHIN: Duration = Duration::from_secs(30);
const CONTAINER_ENDS_WITHIN: Duration = Duration::from_secs(20);
const TRACER_ENDS_WITHIN: Duration = Duration::from_secs(10);
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

const TRY_NEXT: &str = "\
Try next, in another terminal while containers run:
  cargo xtask run -- trace open                      every file that any container opens
  cargo xtask run -- trace open -n NAMESPACE -p POD  that of one pod
  cargo xtask run -- trace exec -o json              every program they execute, as JSON
  cargo xtask run -- doctor                          what this kernel allows";

/// Runs the demonstration with that `tracer`, or with one built now.
pub(crate) fn run(tracer: Option<PathBuf>) -> Result<ExitCode> {
    let tracer = if let Some(tracer) = tracer {
        tracer
    } else {
        setup::ensure(Scope::Demo)?;
        tell("building tracer (takes some minutes the first time)");
        build::tracer_binary(true)?
    };
    if !is_root() {
        return as_root(&tracer);
    }

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("handling signals")?;
    }
    let result = perform(&tracer, &Patience { interrupted: &interrupted });
    if interrupted.load(Ordering::Relaxed) {
        tell("interrupted; everything is cleaned up");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Becomes the same once more through sudo, which may ask for a password. Only this part needs root.
fn as_root(tracer: &Path) -> Result<ExitCode> {
    let this = env::current_exe().context("finding xtask itself")?;
    let variables = build::inherited(&["PATH", "TMPDIR"]);
    let error = process::as_root(&this, &variables)?.arg("demo").arg("--tracer").arg(tracer).exec();
    Err(error).context("starting sudo")
}

fn perform(tracer: &Path, patience: &Patience<'_>) -> Result<()> {
    let runc = find("runc").context("there is no runc")?;
    let busybox = static_busybox().context("there is no static busybox")?;

    let mut session = Session::new(runc)?;
    bundle::write(&session.bundle(), &busybox)?;

    tell(&format!("$ tracer trace open -n {} --timeout 10s", bundle::NAMESPACE));
    session.start_tracer(tracer, bundle::NAMESPACE)?;
    patience.wait("tracer did not become ready", READY_WITHIN, || session.tracer_is_ready())?;

    tell(&format!(
        "starting container {} as containerd would, for pod {} in namespace {}\n      (for three seconds it reads \
         /etc/hosts and /etc/hostname, lists / and looks for a file that is not there)",
        session.id(),
        bundle::POD,
        bundle::NAMESPACE
    ));
    session.start_container()?;
    let status =
        patience.wait("the container did not end", CONTAINER_ENDS_WITHIN, || session.container_status())?;
    ensure!(status.success(), "the container failed ({status})");

    tell("the container has ended; stopping tracer");
    session.stop_tracer()?;
    let status = patience.wait("tracer did not stop", TRACER_ENDS_WITHIN, || session.tracer_status())?;
    ensure!(status.success(), "tracer failed ({status})");

    let shown = session.shown();
    ensure!(shown > 0, "tracer showed no event of the container");
    drop(session);
    tell(&format!("{shown} events, each with its pod's name. Nothing is left behind.\n\n{TRY_NEXT}"));
    Ok(())
}

/// Waiting that ends early when the operator wants to leave.
struct Patience<'a> {
    interrupted: &'a AtomicBool,
}

impl Patience<'_> {
    /// Asks again and again until there is an answer. `complaint` is the error when time is up.
    fn wait<T>(
        &self,
        complaint: &str,
        limit: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                bail!("{complaint} within {} seconds", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// To the operator: stdout is for the events.
fn tell(what: &str) {
    eprintln!("demo: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_an_answer_a_deadline_or_a_signal() {
        let interrupted = AtomicBool::new(false);
        let patience = Patience { interrupted: &interrupted };
        let mut asked = 0;
        let answer = patience.wait("late", Duration::from_secs(60), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(answer.unwrap(), 3);

        let late = patience.wait("late", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert_eq!(late.to_string(), "late within 0 seconds");

        interrupted.store(true, Ordering::Relaxed);
        let gone = patience.wait("late", Duration::from_secs(60), || Ok(None::<()>)).unwrap_err();
        assert_eq!(gone.to_string(), "interrupted");
    }
}
