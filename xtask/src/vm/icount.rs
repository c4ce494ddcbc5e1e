//! `cargo xtask vm icount`: what tracing costs in instructions. The clock of the guest counts them, so that two runs
//! agree, and nothing else that this machine does is measured.
//!
//! Everything is compared within one guest: the loads with nothing attached, with the bare hooks that the benchmark
//! compares tracer with, and with tracer, for the load's container or for another. The guest has one CPU, so the loads
//! report the CPU time that they have used themselves: tracer's own is not included.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use super::{
    HOOKS,
    guest::{Arch, Guest},
    image::Image,
    kernel::Kernel,
    report::Step,
};
use crate::{
    cargo,
    demo::pod_config,
    dist::{self, Target},
    process::quietly,
};

/// The guest's clock goes on by 2 ns an instruction. More would make it too slow for the kernel's timers, less too fast.
const SHIFT: u32 = 1;
/// Operations of a round of each loop.
const OPENS: &str = "2000";
const GETPPIDS: &str = "20000";
/// Namespace of the load's pod.
const NAMESPACE: &str = "load";
/// The bare hooks: programs of `tracer-bench attach`, each on one of tracer's hooks.
const BARE: [(&str, &str); 4] = [
    ("empty:sys-exit", "empty"),
    ("floor:sys-exit", "floor"),
    ("empty:fexit", "empty-fexit"),
    ("floor:fexit", "floor-fexit"),
];
/// Bytes of tracer's record of the load's opens, which a floor writes as well: `Open` of tracer-common and the path.
const RECORD_SIZE: u32 = 88 + 13;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Kernel, by version
    #[arg(value_name = "KERNEL", default_value = "6.1")]
    name: String,
    /// Boot this kernel image instead
    #[arg(long, value_name = "FILE")]
    kernel: Option<std::path::PathBuf>,
    /// Hooks of `trace open` to measure, one after the other
    #[arg(long, value_name = "HOOK", value_delimiter = ',', default_values = HOOKS)]
    hook: Vec<String>,
}

/// Measures and prints the results.
pub(crate) fn run(sh: &Shell, options: &Options) -> Result<()> {
    let named = options.kernel.as_deref().map_or_else(|| Kernel::of(&options.name), Kernel::of_file);
    let kernel = named?.fetch(sh)?;
    let scratch = tempfile::tempdir()?;
    let image = scratch.path().join("image");
    make_image(sh, options, scratch.path(), &image)?;
    let guest = Guest {
        name: "icount",
        arch: Arch::here(),
        kernel: &kernel,
        image: &image,
        cgroups: "v2",
        icount: Some(SHIFT),
        command_line: "",
    };
    let report = guest.run()?;
    for step in report.steps.iter().filter(|step| step.status.as_deref() != Some("0")) {
        eprintln!("xtask: {} failed:\n    {}", step.name, step.output.join("\n    "));
    }
    ensure!(report.done, "the guest ended early");
    let costs = Costs::of(&report.steps)?;
    print!("{}", costs.table());
    for hook in &options.hook {
        print!("\nfigures of {hook}\n{}", costs.figures(hook));
    }
    Ok(())
}

/// The steps of the guest: what is attached, and when.
fn steps(hooks: &[String]) -> String {
    let step = |name: &str, how: &str| format!("step {name} 3600 sh /measure {how}\n");
    let bare = |(name, program)| {
        let attach = format!("after tracer-bench attach {program} --record-size {RECORD_SIZE} --load");
        step(name, &attach)
    };
    let traced = |hook: &String| {
        [("selected", NAMESPACE), ("elsewhere", "other")].map(|(what, namespace)| {
            let trace = format!("before tracer trace open --hook {hook} -n {namespace} -o json");
            step(&format!("{what}:{hook}"), &trace)
        })
    };
    let traced: String = hooks.iter().flat_map(traced).collect();
    step("nothing", "none") + &BARE.map(bare).concat() + &traced
}

fn make_image(sh: &Shell, options: &Options, scratch: &Path, file: &Path) -> Result<()> {
    eprintln!("xtask: building what the guest runs …");
    let target = Target::here()?;
    let image = Image::new(sh, scratch, Arch::here(), &["runc"])?;
    image.add(&dist::tracer(sh, target)?, "/usr/bin/tracer")?;
    let build = cargo::building(sh, "build").args(["--release", "--package", "tracer-bench"]);
    let bench = cargo::program(&cargo::executables(target.select(build))?, "tracer-bench")?;
    image.add(&bench, "/usr/bin/tracer-bench")?;

    let (source, load) = (scratch.join("load.c"), scratch.join("load"));
    fs::write(&source, include_str!("icount/load.c"))?;
    quietly(cmd!(sh, "gcc -O2 -Wall -Werror -static -o {load} {source}"))?;
    image.add(&load, "/load")?;
    for (name, arguments) in
        [("loops", &["/load", "loops", OPENS, GETPPIDS][..]), ("nothing", &["/load", "nothing"])]
    {
        let bundle = format!("/bundles/{name}");
        image.add(&load, &format!("{bundle}/rootfs/load"))?;
        image.executable(&format!("{bundle}/rootfs/etc/hostname"), "box\n")?;
        fs::create_dir_all(image.inside(&format!("{bundle}/rootfs/proc"))?)?;
        image.executable(&format!("{bundle}/config.json"), &pod_config(NAMESPACE, "load", arguments))?;
    }
    image.executable("/measure", include_str!("icount/measure.sh"))?;
    image.executable("/steps", &steps(&options.hook))?;
    image.pack(file)
}

/// What the loads do: its name in their output, and in ours.
const LOADS: [(&str, &str); 4] =
    [("open", "open+close"), ("getppid", "getppid"), ("run", "runc run"), ("wall", "by the clock")];

/// Instructions of an operation of each load, by what was attached.
#[derive(Debug)]
struct Costs(BTreeMap<String, BTreeMap<&'static str, f64>>);

impl Costs {
    /// From the output of the steps: a load and nanoseconds on each line.
    fn of(steps: &[Step]) -> Result<Self> {
        let mut costs = BTreeMap::new();
        for step in steps.iter().filter(|step| step.status.as_deref() == Some("0")) {
            let mut loads = BTreeMap::new();
            for (load, _) in LOADS {
                let time = step.output.iter().find_map(|line| line.strip_prefix(load)?.strip_prefix(' '));
                let nanoseconds: Option<f64> = time.and_then(|time| time.parse().ok());
                let nanoseconds = nanoseconds
                    .with_context(|| format!("{}: no time of {load}: {:?}", step.name, step.output))?;
                loads.insert(load, nanoseconds / f64::from(1 << SHIFT));
            }
            costs.insert(step.name.clone(), loads);
        }
        ensure!(costs.contains_key("nothing"), "the costs of the loads by themselves are missing");
        Ok(Self(costs))
    }

    fn instructions(&self, attached: &str, load: &str) -> Option<f64> {
        self.0.get(attached)?.get(load).copied()
    }

    /// What being attached adds to an operation.
    fn added(&self, attached: &str, load: &str) -> Option<f64> {
        Some(self.instructions(attached, load)? - self.instructions("nothing", load)?)
    }

    /// All costs: in full for nothing, what is added for the rest.
    fn table(&self) -> String {
        let row = |name: &str, cells: [String; 4]| {
            let cells = cells.map(|cell| format!("{cell:>16}"));
            format!("{name:<22}{}\n", cells.concat())
        };
        let mut text = row("instructions", LOADS.map(|(_, name)| name.to_owned()));
        let alone = |load| format!("{:.0}", self.instructions("nothing", load).unwrap_or(f64::NAN));
        text += &row("nothing", LOADS.map(|(load, _)| alone(load)));
        for attached in self.0.keys().filter(|name| *name != "nothing") {
            let added = |load| format!("{:+.0}", self.added(attached, load).unwrap_or(f64::NAN));
            text += &row(attached, LOADS.map(|(load, _)| added(load)));
        }
        text
    }

    /// The figures of the benchmark that follow from instructions, for a hook of tracer's.
    fn figures(&self, hook: &str) -> String {
        let added = |what: &str, load: &str| self.added(&format!("{what}:{hook}"), load);
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let beyond_empty = |what: &str| Some(added(what, "open")? - added("empty", "open")?);
        let running = self.instructions(&format!("selected:{hook}"), "run");
        let figures = [
            (
                "1  selected / floor, open+close",
                ratio(added("selected", "open"), added("floor", "open")),
                1.3,
            ),
            (
                "3  not selected / selected, beyond empty",
                ratio(beyond_empty("elsewhere"), beyond_empty("selected")),
                0.15,
            ),
            (
                "4  getppid, tracer / empty",
                ratio(added("selected", "getppid"), added("empty", "getppid")),
                1.3,
            ),
            ("9  runc run while tracing / alone", ratio(running, self.instructions("nothing", "run")), 1.02),
        ];
        let line = |(what, value, target): (&str, Option<f64>, f64)| match value {
            None => format!("   {what:<45} unknown\n"),
            Some(value) => {
                let verdict = if value <= target { "ok" } else { "MISSED" };
                format!("   {what:<45} {value:.3} (at most {target}) {verdict}\n")
            }
        };
        figures.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Vec<Step> {
        let of = |name: &str, open: u32, ppid: u32, run: u32| Step {
            name: name.to_owned(),
            status: Some("0".to_owned()),
            output: vec![
                format!("open {open}.0"),
                format!("getppid {ppid}"),
                format!("run {run}"),
                "wall 2000".to_owned(),
                "tracer: seen 3 emitted 3 filtered 0 lost 0".to_owned(),
            ],
            time: std::time::Duration::ZERO,
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
        let mut measured = measured();
        let costs = Costs::of(&measured).unwrap();
        let table = costs.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["nothing", "500", "100", "5000", "1000"]);
        assert!(lines.contains(&vec!["selected:sys-exit", "+240", "+60", "+75", "+0"]), "{table}");
        let figures = costs.figures("sys-exit");
        for part in ["1.200 (at most 1.3) ok", "0.100 (at most 0.15) ok", "1.015 (at most 1.02) ok"] {
            assert!(figures.contains(part), "{part} in {figures}");
        }
        assert!(!costs.figures("fexit").contains("at most"), "nothing was measured with it");
        measured[2].status = Some("1".to_owned());
        assert!(Costs::of(&measured).unwrap().figures("sys-exit").contains("unknown"), "a step failed");
        measured[1].output.remove(0);
        assert!(Costs::of(&measured).is_err(), "a load is missing");
    }
}
