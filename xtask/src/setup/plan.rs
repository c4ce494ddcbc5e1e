//! From what is needed and what is there to commands. Nothing here touches the machine.

use super::{
    machine::{Machine, Privilege, llvm_prefix},
    needs::{Needs, Package, Tool, Toolchain},
};
use crate::pins;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Run these; none where nothing is missing.
    Install(Vec<Step>),
    /// Something of it may not be installed from here: all that is missing, for a person to install.
    ByHand(String),
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it does, for the operator.
    pub(crate) says: String,
    pub(crate) command: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) as_root: bool,
    /// What else to try when it fails.
    pub(crate) hint: Option<String>,
}

impl Step {
    /// As one would type it into a shell.
    pub(crate) fn line(&self) -> String {
        let sudo = self.as_root.then(|| "sudo".to_owned());
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={value}"));
        let words: Vec<_> = sudo.into_iter().chain(variables).chain(self.command.iter().cloned()).collect();
        words.join(" ")
    }
}

/// Lists what is missing, in the order in which it can be installed.
pub(crate) fn plan(needs: &Needs, machine: &Machine) -> Plan {
    let mut steps: Vec<Step> =
        needs.toolchains.iter().filter_map(|toolchain| install_toolchain(toolchain, machine)).collect();
    let rust = !steps.is_empty();

    let tools: Vec<Tool> = needs
        .tools
        .iter()
        .copied()
        .filter(|tool| machine.tools.get(tool.name()).is_none_or(|version| version != tool.version()))
        .collect();
    let missing: Vec<&Package> =
        needs.packages.iter().filter(|package| !machine.packages.contains(&package.name)).collect();
    let packages: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let llvm = tools.contains(&Tool::BpfLinker) && !machine.llvm;

    let apt = !packages.is_empty() || llvm;
    if apt {
        steps.push(apt_get("updating the package lists (apt)".into(), &["update"]));
    }
    if !packages.is_empty() {
        let mut says = format!("installing {} (apt)", packages.join(", "));
        let services: Vec<&str> = missing.iter().filter_map(|package| package.service).collect();
        if !services.is_empty() {
            says.push_str("; where systemd runs, this starts ");
            says.push_str(&services.join(", "));
        }
        steps.push(apt_install(says, &packages));
    }
    if llvm {
        let package = format!("llvm-{}-dev", pins::LLVM);
        let says = format!("installing {package} (apt), to build bpf-linker with");
        steps.push(Step { hint: Some(prebuilt_linker()), ..apt_install(says, &[&package]) });
    }
    steps.extend(tools.iter().map(|&tool| install_tool(tool, machine)));

    let may_apt = machine.apt && machine.privilege != Privilege::None;
    if ((rust || !tools.is_empty()) && !machine.rustup) || (apt && !may_apt) {
        return Plan::ByHand(by_hand(&steps, &packages, machine));
    }
    Plan::Install(steps)
}

fn install_toolchain(toolchain: &Toolchain, machine: &Machine) -> Option<Step> {
    let name = toolchain.name;
    let installed = machine.toolchains.get(name);
    let is_missing =
        |part: &str| !installed.is_some_and(|list| list.iter().any(|line| is_component(line, part)));
    let missing = |parts: &[&'static str], component: fn(&str) -> String| -> Vec<&'static str> {
        parts.iter().copied().filter(|part| is_missing(&component(part))).collect()
    };
    let components = missing(&toolchain.components, str::to_owned);
    let targets = missing(&toolchain.targets, standard_library);
    if installed.is_some() && components.is_empty() && targets.is_empty() {
        return None;
    }
    let parts = [&components[..], &targets].concat().join(" and ");
    let says = match (installed, parts.is_empty()) {
        (None, true) => format!("installing Rust {name}"),
        (None, false) => format!("installing Rust {name} with {parts}"),
        (Some(_), _) => format!("adding {parts} to Rust {name}"),
    };
    let mut command =
        words(&["rustup", "toolchain", "install", name, "--profile", "minimal", "--no-self-update"]);
    for component in components {
        command.extend(words(&["--component", component]));
    }
    // Not by their component: rustup takes that for one of the machine's own target.
    for target in targets {
        command.extend(words(&["--target", target]));
    }
    Some(Step { says, command, variables: vec![], as_root: false, hint: None })
}

/// The component that a target consists of, as rustup lists it.
fn standard_library(target: &str) -> String {
    format!("rust-std-{target}")
}

/// Whether rustup's line names the component: `rust-src`, or `clippy-x86_64-unknown-linux-gnu`.
fn is_component(line: &str, component: &str) -> bool {
    line.strip_prefix(component).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn install_tool(tool: Tool, machine: &Machine) -> Step {
    let (name, version) = (tool.name(), tool.version());
    let mut command =
        words(&["rustup", "run", pins::STABLE, "cargo", "install", name, "--version", version, "--locked"]);
    let mut variables = Vec::new();
    let mut hint = None;
    let duration = match tool {
        Tool::BpfLinker => {
            let llvm = format!("llvm-{}", pins::LLVM);
            command.extend(words(&["--no-default-features", "--features", &llvm]));
            variables.push(("LLVM_PREFIX", llvm_prefix()));
            hint = Some(prebuilt_linker());
            "a minute or two"
        }
        Tool::CargoDeny => "some minutes",
        Tool::CargoDeb | Tool::CargoFuzz => "a minute or two",
        Tool::Youki => {
            // Without seccomp and systemd it needs no library of the system.
            command.extend(words(&["--no-default-features", "--features", "v1,v2"]));
            "two or three minutes"
        }
    };
    let instead = machine.tools.get(name).map_or(String::new(), |found| format!(" in place of {found}"));
    // It starts but has another version, or it does not start: cargo may not know that it is there.
    command.push("--force".into());
    let says = format!("building {name} {version}{instead} (takes {duration})");
    Step { says, command, variables, as_root: false, hint }
}

fn prebuilt_linker() -> String {
    format!(
        "Where apt has no LLVM {}, install a prebuilt bpf-linker {}: `cargo binstall bpf-linker@{}`, or from its \
         releases page.",
        pins::LLVM,
        pins::BPF_LINKER,
        pins::BPF_LINKER
    )
}

fn apt_install(says: String, packages: &[&str]) -> Step {
    let mut step = apt_get(says, &["install", "-y", "--no-install-recommends"]);
    step.command.extend(words(packages));
    step
}

fn apt_get(says: String, args: &[&str]) -> Step {
    let mut command = words(&["apt-get", "-o", "DPkg::Lock::Timeout=120"]);
    command.extend(words(args));
    let variables = vec![("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    Step { says, command, variables, as_root: true, hint: None }
}

fn by_hand(steps: &[Step], packages: &[&str], machine: &Machine) -> String {
    let mut text =
        "something is missing that cannot be installed from here. Install it and try again:\n".to_owned();
    if !machine.rustup {
        text.push_str("\n    # rustup, from your distribution or https://rustup.rs");
    }
    if !machine.apt && !packages.is_empty() {
        text.push_str("\n    # with your package manager (Debian's names): ");
        text.push_str(&packages.join(" "));
    }
    for step in steps {
        let is_apt = step.command.first().is_some_and(|program| program == "apt-get");
        if !is_apt || machine.apt {
            text.push_str("\n    ");
            text.push_str(&step.line());
        }
    }
    if steps.iter().any(|step| step.hint.is_some()) {
        text.push_str("\n\n");
        text.push_str(&prebuilt_linker());
    }
    text
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::setup::needs::Scope;

    /// Root on a Debian with rustup and nothing else.
    fn bare() -> Machine {
        Machine {
            rustup: true,
            toolchains: BTreeMap::new(),
            tools: BTreeMap::new(),
            packages: vec![],
            llvm: false,
            apt: true,
            privilege: Privilege::Root,
        }
    }

    /// A machine with everything that the tests need.
    fn complete() -> Machine {
        let component = |name: &str| format!("{name}-x86_64-unknown-linux-gnu");
        Machine {
            toolchains: BTreeMap::from([
                (pins::STABLE, vec![component("cargo"), component("clippy"), component("rustfmt")]),
                (pins::NIGHTLY, vec![component("clippy"), "rust-src".into()]),
            ]),
            tools: BTreeMap::from([
                ("bpf-linker", pins::BPF_LINKER.to_owned()),
                ("cargo-deny", pins::CARGO_DENY.to_owned()),
                ("youki", pins::YOUKI.to_owned()),
            ]),
            packages: Scope::Test.needs().packages.iter().map(|package| package.name).collect(),
            ..bare()
        }
    }

    fn lines(scope: Scope, machine: &Machine) -> Vec<String> {
        match plan(&scope.needs(), machine) {
            Plan::Install(steps) => steps.iter().map(Step::line).collect(),
            Plan::ByHand(text) => panic!("by hand: {text}"),
        }
    }

    fn by_hand(scope: Scope, machine: &Machine) -> String {
        match plan(&scope.needs(), machine) {
            Plan::ByHand(text) => text,
            Plan::Install(steps) => panic!("{steps:?}"),
        }
    }

    #[test]
    fn complete_machine_needs_nothing() {
        for scope in [Scope::Build, Scope::Demo, Scope::Bench, Scope::Quick, Scope::Test] {
            assert_eq!(lines(scope, &complete()), [""; 0]);
        }
        // A user without any means to become root can build there, too.
        let user = Machine { privilege: Privilege::None, apt: false, ..complete() };
        assert_eq!(lines(Scope::Test, &user), [""; 0]);
    }

    #[test]
    fn bare_machine_gets_everything_in_order() {
        let lines = lines(Scope::Test, &bare());
        let apt = "sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120";
        let install = format!("{apt} install -y --no-install-recommends");
        let cargo = format!("rustup run {} cargo install", pins::STABLE);
        let rustup = "--profile minimal --no-self-update --component";
        assert_eq!(
            lines,
            [
                format!("rustup toolchain install {} {rustup} clippy --component rustfmt", pins::STABLE),
                format!("rustup toolchain install {} {rustup} rust-src --component clippy", pins::NIGHTLY),
                format!("{apt} update"),
                format!(
                    "{install} runc busybox-static crun containerd docker.io podman gcc bpftool kubernetes-client"
                ),
                format!("{install} llvm-{}-dev", pins::LLVM),
                format!(
                    "LLVM_PREFIX=/usr/lib/llvm-{} {cargo} bpf-linker --version {} --locked --no-default-features \
                     --features llvm-{} --force",
                    pins::LLVM,
                    pins::BPF_LINKER,
                    pins::LLVM
                ),
                format!("{cargo} cargo-deny --version {} --locked --force", pins::CARGO_DENY),
                format!(
                    "{cargo} youki --version {} --locked --no-default-features --features v1,v2 --force",
                    pins::YOUKI
                ),
            ]
        );
    }

    #[test]
    fn services_that_packages_start_are_told() {
        let mut machine = complete();
        machine.packages.retain(|name| !["docker.io", "gcc"].contains(name));
        let Plan::Install(steps) = plan(&Scope::Test.needs(), &machine) else { panic!() };
        assert_eq!(steps[1].says, "installing docker.io, gcc (apt); where systemd runs, this starts docker");
    }

    #[test]
    fn commands_ask_for_no_more_than_they_use() {
        let build = lines(Scope::Build, &bare()).join("\n");
        for absent in ["clippy", "rustfmt", "runc", "cargo-deny", "youki"] {
            assert!(!build.contains(absent), "{build}");
        }
        assert!(build.contains("rust-src") && build.contains("bpf-linker"), "{build}");
        let demo = lines(Scope::Demo, &bare()).join("\n");
        assert!(demo.contains(" runc busybox-static") && !demo.contains("crun"), "{demo}");
        let quick = lines(Scope::Quick, &bare()).join("\n");
        assert!(quick.contains("clippy") && !quick.contains("runc"), "{quick}");
    }

    #[test]
    fn llvm_is_installed_only_to_build_the_linker() {
        let llvm_there = Machine { tools: BTreeMap::new(), llvm: true, ..complete() };
        let lines = lines(Scope::Build, &llvm_there);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("cargo install bpf-linker"), "{lines:?}");
    }

    #[test]
    fn another_version_is_replaced() {
        let mut machine = complete();
        machine.llvm = true;
        machine.tools.insert("bpf-linker", "0.9.0".into());
        let Plan::Install(steps) = plan(&Scope::Build.needs(), &machine) else { panic!() };
        assert_eq!(steps.len(), 1);
        assert!(steps[0].says.contains("in place of 0.9.0"), "{}", steps[0].says);
    }

    #[test]
    fn one_missing_component_is_added() {
        let mut machine = complete();
        machine.toolchains.insert(pins::NIGHTLY, vec!["rust-src".into(), "clippy-preview-x".into()]);
        assert_eq!(lines(Scope::Test, &machine), [""; 0]);
        machine.toolchains.insert(pins::NIGHTLY, vec!["rust-src".into()]);
        let Plan::Install(steps) = plan(&Scope::Test.needs(), &machine) else { panic!() };
        assert_eq!(steps[0].says, format!("adding clippy to Rust {}", pins::NIGHTLY));
        assert_eq!(steps.len(), 1);
    }

    #[test]
    fn targets_are_installed_as_targets() {
        let first = lines(Scope::Vm, &bare()).remove(0);
        assert_eq!(
            first,
            format!(
                "rustup toolchain install {} --profile minimal --no-self-update --target \
                 x86_64-unknown-linux-musl --target aarch64-unknown-linux-musl",
                pins::STABLE
            )
        );
        let mut machine = complete();
        let Plan::Install(steps) = plan(&Scope::Image.needs(), &machine) else { panic!() };
        assert_eq!(
            steps[0].says,
            format!(
                "adding x86_64-unknown-linux-musl and aarch64-unknown-linux-musl to Rust {}",
                pins::STABLE
            )
        );
        let installed = machine.toolchains.get_mut(pins::STABLE).unwrap();
        installed.extend(crate::dist::TARGETS.iter().map(|target| standard_library(target.triple)));
        assert_eq!(lines(Scope::Image, &machine), [""; 0]);
    }

    #[test]
    fn toolchains_need_no_root() {
        let user =
            Machine { toolchains: BTreeMap::new(), privilege: Privilege::None, apt: false, ..complete() };
        assert_eq!(lines(Scope::Build, &user).len(), 2);
    }

    #[test]
    fn without_root_everything_missing_is_listed_at_once() {
        let text = by_hand(Scope::Test, &Machine { privilege: Privilege::None, ..bare() });
        for part in
            ["sudo DEBIAN_FRONTEND", "runc", "toolchain install", "cargo install cargo-deny", "binstall"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn without_apt_packages_are_named() {
        let text = by_hand(Scope::Demo, &Machine { apt: false, ..bare() });
        assert!(text.contains("package manager (Debian's names): runc busybox-static"), "{text}");
        assert!(!text.contains("apt-get"), "{text}");
    }

    #[test]
    fn without_rustup_it_comes_first() {
        let text = by_hand(Scope::Build, &Machine { rustup: false, llvm: true, ..bare() });
        assert!(text.contains("# rustup, from"), "{text}");
        assert!(text.find("# rustup").unwrap() < text.find("toolchain install").unwrap(), "{text}");
    }

    #[test]
    fn component_names_match_whole_words() {
        assert!(is_component("rust-src", "rust-src"));
        assert!(is_component("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!is_component("clippyish", "clippy"));
        assert!(!is_component("rust-std-x86_64-unknown-linux-gnu", "rust-src"));
    }
}
