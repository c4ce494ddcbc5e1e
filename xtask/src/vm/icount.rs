//! What tracing costs in instructions: a guest whose clock counts them, so that two runs agree and nothing that this
//! machine does besides is measured.
//!
//! Everything is compared within one guest: the loads with nothing attached, with the bare hooks that the benchmark
//! compares tracer with, and with tracer, asked for the load's container or for another. The guest has one CPU, so the
//! loads tell the CPU time that they themselves have had: tracer's own is not theirs.

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    HOOKS,
    arch::Arch,
    guest::Guest,
    image::Image,
    kernel::{Cgroups, Kernel},
    logs,
    report::{Status, Step},
};
use crate::{
    artifact,
    dist::{self, Target},
    process::{cargo_stable, clean, quietly},
    setup::{self, Scope},
};

const LOAD: &str = include_str!("icount/load.c");
const MEASURE: &str = include_str!("icount/measure.sh");

/// The guest's clock goes on by 2 ns an instruction. More would make it too slow for the kernel's timers, less too fast.
const SHIFT: u32 = 1;
/// Operations of a round of each loop.
const OPENS: u32 = 2_000;
const GETPPIDS: u32 = 20_000;
/// The pod's namespace that the loads are in.
const NAMESPACE: &str = "load";
const STEP_LIMIT: u32 = 3600;
const GUEST_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// What tracer is compared with: the programs of `tracer-bench attach`, each on one of tracer's hooks.
const BARE: [(&str, &str, &str); 4] = [
    ("empty", "sys-exit", "empty"),
    ("floor", "sys-exit", "floor"),
    ("empty", "fexit", "empty-fexit"),
    ("floor", "fexit", "floor-fexit"),
];
/// Bytes of tracer's record of the load's opens, which a floor writes as well: `Open` of tracer-common and the path.
const RECORD_SIZE: u32 = 88 + 13;

/// What to measure where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The kernel, by version
    #[arg(value_name = "KERNEL", default_value = "6.1")]
    name: String,
    /// Boot this kernel image instead
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Have `trace open` use these hooks, one after the other
    #[arg(long, value_name = "HOOK", value_delimiter = ',', default_values = HOOKS)]
    hook: Vec<String>,
}

/// Measures and says what came of it.
pub(crate) fn run(options: &Options) -> Result<String> {
    setup::ensure(Scope::Vm)?;
    let kernel = match &options.kernel {
        Some(file) => file.clone(),
        None => Kernel::of(&options.name)?.file(false)?,
    };
    let scratch = tempfile::tempdir()?;
    let image = scratch.path().join("image");
    make_image(options, scratch.path(), &image)?;
    let guest = Guest {
        name: "icount",
        arch: Arch::of(ARCH)?,
        kernel: &kernel,
        image: &image,
        cgroups: Cgroups::V2,
        icount: Some(SHIFT),
        command_line: "",
        limit: GUEST_LIMIT,
        logs: &logs(),
    };
    let report = guest.run()?;
    for step in report.steps.iter().filter(|step| step.status != Some(Status::Exit(0))) {
        eprintln!("xtask: {} failed:\n    {}", step.name, step.output.join("\n    "));
    }
    ensure!(report.done, "the guest ended early; {}", report.stray.join("\n"));
    let costs = Costs::of(&report.steps)?;
    Ok(costs.table() + "\n" + &costs.figures(&options.hooks()))
}

impl Options {
    /// The hooks that tracer is told; one that is not told where there are none.
    fn hooks(&self) -> Vec<&str> {
        if self.hook.is_empty() { vec![""] } else { self.hook.iter().map(String::as_str).collect() }
    }

    /// The steps of the guest: what is attached, and how.
    fn steps(&self) -> String {
        let mut steps = Vec::new();
        let mut add = |name: &str, how: &str| {
            steps.push(format!("step {name} {STEP_LIMIT} sh /measure {how}\n"));
        };
        add("nothing", "none");
        for (what, hook, kind) in BARE {
            let command = format!("tracer-bench attach {kind} --record-size {RECORD_SIZE} --load");
            add(&name(what, hook), &format!("after {command}"));
        }
        for hook in self.hooks() {
            let option = if hook.is_empty() { String::new() } else { format!(" --hook {hook}") };
            for (what, namespace) in [("selected", NAMESPACE), ("elsewhere", "other")] {
                let command = format!("tracer trace open{option} -n {namespace} -o json");
                add(&name(what, hook), &format!("before {command}"));
            }
        }
        steps.concat()
    }
}

/// `selected:fexit`; without the hook where tracer takes the one it finds best.
fn name(what: &str, hook: &str) -> String {
    if hook.is_empty() { what.to_owned() } else { format!("{what}:{hook}") }
}

fn make_image(options: &Options, scratch: &Path, file: &Path) -> Result<()> {
    eprintln!("xtask: building what the guest runs …");
    let image = Image::new(scratch, Arch::of(ARCH)?, &["runc"])?;
    image.add(&dist::tracer(ARCH)?, Path::new("/usr/bin/tracer"))?;
    image.add(&bench()?, Path::new("/usr/bin/tracer-bench"))?;
    let load = compile(scratch)?;
    image.add(&load, Path::new("/load"))?;
    let loops = ["/load", "loops", &OPENS.to_string(), &GETPPIDS.to_string()].map(str::to_owned);
    let nothing = ["/load", "nothing"].map(str::to_owned);
    for (name, args) in [("loops", &loops[..]), ("nothing", &nothing)] {
        let bundle = Path::new("/bundles").join(name);
        image.add(&load, &bundle.join("rootfs/load"))?;
        image.executable(&format!("/bundles/{name}/rootfs/etc/hostname"), "box\n")?;
        image.executable(&format!("/bundles/{name}/config.json"), &config(args).to_string())?;
        image.directory(&bundle.join("rootfs/proc"))?;
    }
    image.executable("/measure", MEASURE)?;
    image.executable("/steps", &options.steps())?;
    image.pack(file)
}

/// Builds the bare hooks as a static program.
fn bench() -> Result<PathBuf> {
    let mut command = cargo_stable("build");
    command.args(["--release", "--package", "tracer-bench", "--bin", "tracer-bench"]);
    artifact::named(artifact::executables(Target::of(ARCH)?.select(&mut command))?, "tracer-bench")
}

fn compile(scratch: &Path) -> Result<PathBuf> {
    let (source, program) = (scratch.join("load.c"), scratch.join("load"));
    fs::write(&source, LOAD)?;
    let mut gcc = clean("gcc".as_ref());
    gcc.args(["-O2", "-Wall", "-Werror", "-static", "-o"]).args([&program, &source]);
    quietly(&mut gcc).context("compiling the loads")?;
    Ok(program)
}

/// A container of a pod, as containerd would describe it.
fn config(args: &[String]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/"], "cwd": "/",
            "capabilities": {},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.image-name": "registry.example/app:1",
            "io.kubernetes.cri.sandbox-id": "sandbox-of-load",
            "io.kubernetes.cri.sandbox-name": "load",
            "io.kubernetes.cri.sandbox-namespace": NAMESPACE,
            "io.kubernetes.cri.sandbox-uid": "uid-of-load",
        },
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
        ]},
    })
}

/// Instructions of each load's operations, by what was attached.
#[derive(Debug)]
struct Costs(BTreeMap<String, BTreeMap<String, f64>>);

/// What the loads do, and what that is called.
const LOADS: [(&str, &str); 4] =
    [("open", "open+close"), ("getppid", "getppid"), ("run", "runc run"), ("wall", "by the clock")];

impl Costs {
    /// From what the steps say: a name and nanoseconds a line.
    fn of(steps: &[Step]) -> Result<Self> {
        let mut costs = BTreeMap::new();
        for step in steps.iter().filter(|step| step.status == Some(Status::Exit(0))) {
            let mut loads = BTreeMap::new();
            for line in &step.output {
                let Some((name, nanoseconds)) = line.split_once(' ') else { continue };
                if LOADS.iter().any(|(load, _)| *load == name) {
                    let nanoseconds: f64 =
                        nanoseconds.parse().with_context(|| format!("{} said {line:?}", step.name))?;
                    loads.insert(name.to_owned(), nanoseconds / f64::from(1 << SHIFT));
                }
            }
            for (load, _) in LOADS {
                if !loads.contains_key(load) {
                    bail!("{} did not say what {load} takes: {:?}", step.name, step.output);
                }
            }
            costs.insert(step.name.clone(), loads);
        }
        ensure!(costs.contains_key("nothing"), "what the loads take by themselves is not known");
        Ok(Self(costs))
    }

    fn instructions(&self, attached: &str, load: &str) -> Option<f64> {
        self.0.get(attached)?.get(load).copied()
    }

    /// What being attached adds to an operation.
    fn added(&self, attached: &str, load: &str) -> Option<f64> {
        Some(self.instructions(attached, load)? - self.instructions("nothing", load)?)
    }

    /// All of it: in full for nothing, what is added for the rest.
    fn table(&self) -> String {
        let mut text = format!("{:<22}", "instructions");
        for (_, what) in LOADS {
            // Writing to a string cannot fail.
            let _ = write!(text, "{what:>16}");
        }
        text.push('\n');
        let others = self.0.keys().filter(|name| *name != "nothing");
        for attached in ["nothing"].into_iter().chain(others.map(String::as_str)) {
            let _ = write!(text, "{attached:<22}");
            for (load, _) in LOADS {
                let cell = match self.added(attached, load) {
                    Some(added) if attached != "nothing" => format!("{added:+.0}"),
                    _ => format!("{:.0}", self.instructions(attached, load).unwrap_or(f64::NAN)),
                };
                let _ = write!(text, "{cell:>16}");
            }
            text.push('\n');
        }
        text
    }

    /// The figures of the benchmark that instructions can tell, for each hook of tracer's.
    fn figures(&self, hooks: &[&str]) -> String {
        let mut text = String::new();
        for hook in hooks {
            let (selected, elsewhere) = (name("selected", hook), name("elsewhere", hook));
            // Where tracer chose, it took this one or a better one.
            let bare = if hook.is_empty() { "sys-exit" } else { hook };
            let (empty, floor) = (name("empty", bare), name("floor", bare));
            let open = |attached: &str| self.added(attached, "open");
            let ppid = |attached: &str| self.added(attached, "getppid");
            let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
            let less = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
            let run = ratio(self.instructions(&selected, "run"), self.instructions("nothing", "run"));
            let rows = [
                ("1", "selected / floor, open+close", ratio(open(&selected), open(&floor)), 1.3),
                (
                    "3",
                    "not selected / selected, both less an empty hook",
                    ratio(less(open(&elsewhere), open(&empty)), less(open(&selected), open(&empty))),
                    0.15,
                ),
                ("4", "getppid, tracer / an empty hook", ratio(ppid(&selected), ppid(&empty)), 1.3),
                ("9", "runc run while tracing / alone", run, 1.02),
            ];
            let _ = writeln!(text, "figures{}{hook}", if hook.is_empty() { "" } else { " of " });
            for (number, what, value, target) in rows {
                let said = value.map_or("not known".to_owned(), |value| {
                    let verdict = if value <= target { "ok" } else { "MISSED" };
                    format!("{value:.3} (at most {target}) {verdict}")
                });
                let _ = writeln!(text, "{number:>4}  {what:<50} {said}");
            }
            if let Some(added) = ppid(&selected) {
                let _ = writeln!(text, "   4  {:<50} {added:.0} instructions", "getppid, added by tracer");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, status: i32, lines: &[&str]) -> Step {
        let output = lines.iter().map(ToString::to_string).collect();
        Step { name: name.to_owned(), status: Some(Status::Exit(status)), output, time: Duration::ZERO }
    }

    fn steps() -> Vec<Step> {
        let of = |name, open: u32, ppid: u32, run: u32| {
            let lines = [
                format!("open {open}.0"),
                format!("getppid {ppid}"),
                format!("run {run}"),
                "wall 2000".to_owned(),
            ];
            let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            lines.push("tracer: seen 3 emitted 3 filtered 0 lost 0");
            step(name, 0, &lines)
        };
        vec![
            of("nothing", 1000, 200, 10_000),
            of("empty:sys-exit", 1200, 300, 10_100),
            of("floor:sys-exit", 1400, 320, 10_200),
            of("selected:sys-exit", 1480, 320, 10_150),
            of("elsewhere:sys-exit", 1228, 320, 10_150),
        ]
    }

    #[test]
    fn costs_are_what_is_added() {
        let costs = Costs::of(&steps()).unwrap();
        let table = costs.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["nothing", "500", "100", "5000", "1000"]);
        assert!(lines.contains(&vec!["selected:sys-exit", "+240", "+60", "+75", "+0"]), "{table}");
    }

    #[test]
    fn figures_are_ratios() {
        let figures = Costs::of(&steps()).unwrap().figures(&["sys-exit", "fexit"]);
        let (sys_exit, fexit) = figures.split_once("figures of fexit").unwrap();
        for part in ["1.200 (at most 1.3) ok", "0.100 (at most 0.15) ok", "1.015 (at most 1.02) ok"] {
            assert!(sys_exit.contains(part), "{part} in {sys_exit}");
        }
        assert!(fexit.contains("not known") && !fexit.contains("at most"), "{fexit}");
    }

    #[test]
    fn what_failed_is_not_known() {
        let mut measured = steps();
        measured[2].status = Some(Status::Exit(1));
        let figures = Costs::of(&measured).unwrap().figures(&["sys-exit"]);
        assert!(
            figures.contains("1  selected / floor, open+close                       not known"),
            "{figures}"
        );
        measured[1].output.remove(0);
        assert!(Costs::of(&measured).unwrap_err().to_string().contains("did not say what open takes"));
        measured.remove(1);
        measured[0].status = Some(Status::Exit(1));
        assert!(Costs::of(&measured).is_err());
    }

    #[test]
    fn every_hook_is_measured_both_ways() {
        let options = |hook: &[&str]| Options {
            name: "6.1".to_owned(),
            kernel: None,
            hook: hook.iter().map(ToString::to_string).collect(),
        };
        let steps = options(&["fexit"]).steps();
        assert_eq!(steps.lines().count(), 7, "{steps}");
        assert!(steps.contains(&format!(
            "step selected:fexit {STEP_LIMIT} sh /measure before tracer trace open --hook fexit -n load -o json\n"
        )));
        assert!(steps.contains("after tracer-bench attach floor-fexit --record-size"));
        let steps = options(&[]).steps();
        assert_eq!(steps.lines().count(), 7, "{steps}");
        assert!(steps.contains("step elsewhere ") && !steps.contains("--hook"), "{steps}");
    }
}
