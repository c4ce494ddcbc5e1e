//! Finding out what a command needs and lacks, and installing that.
//!
//! Three parts: [`needs`] is the table of what each command needs, [`machine`] looks what is there,
//! and [`plan`] turns the two into commands without running anything. This file runs them. What no machine
//! must have, and only some can, is apart: [`criu`](mod@criu), with packages of another [`suite`].

mod criu;
pub(crate) mod machine;
mod needs;
mod plan;
pub(crate) mod suite;

use std::{ffi::OsStr, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::process::{clean, root};

pub(crate) use criu::criu;
pub(crate) use needs::Scope;

use machine::{Machine, Privilege};
use plan::{Plan, Step};

/// Installs what `scope` needs and lacks, one line each. Says nothing where nothing is missing. Where it may
/// not install, the error is what to install by hand.
pub(crate) fn ensure(scope: Scope) -> Result<()> {
    let needs = scope.needs();
    let machine = Machine::look(&needs)?;
    match plan::plan(&needs, &machine) {
        Plan::Install(steps) => steps.iter().try_for_each(|step| install(step, machine.privilege)),
        Plan::ByHand(what) => bail!("{what}"),
    }
}

/// Whether everything can be installed here without asking anybody: root, and apt.
pub(crate) fn can_install_everything() -> bool {
    crate::process::is_root() && machine::has_apt()
}

/// Runs one step. Its output is shown only if it fails.
fn install(step: &Step, privilege: Privilege) -> Result<()> {
    eprintln!("xtask: {}", step.says);
    let mut command = command(step, privilege);
    let output = command.output().with_context(|| format!("starting {}", step.line()))?;
    if output.status.success() {
        return Ok(());
    }
    let mut why = String::from_utf8_lossy(&output.stdout).into_owned();
    why.push_str(&String::from_utf8_lossy(&output.stderr));
    if let Some(hint) = &step.hint {
        why.push_str("\n\n");
        why.push_str(hint);
    }
    bail!("`{}` failed ({}):\n{}", step.line(), output.status, why.trim_end())
}

fn command(step: &Step, privilege: Privilege) -> Command {
    let mut words = step.command.iter();
    let program = words.next().map_or("true", String::as_str);
    let mut command;
    if step.as_root && privilege == Privilege::Sudo {
        command = clean(OsStr::new("sudo"));
        command.args(["-n", "env"]);
        command.args(step.variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
    } else {
        command = clean(OsStr::new(program));
        command.envs(step.variables.iter().map(|(name, value)| (name, value)));
    }
    // apt and rustup must not wait for an answer.
    command.args(words).current_dir(root()).stdin(std::process::Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(command: &[&str]) -> Step {
        Step {
            says: "installing it".into(),
            command: command.iter().map(ToString::to_string).collect(),
            variables: vec![("HOW", "quietly".into())],
            as_root: true,
            hint: Some("Try elsewhere.".into()),
        }
    }

    #[test]
    fn sudo_gets_the_variables_as_words() {
        let command = command(&step(&["apt-get", "update"]), Privilege::Sudo);
        assert_eq!(crate::process::name(&command), "sudo -n env HOW=quietly apt-get update");
    }

    #[test]
    fn failure_shows_output_and_hint() {
        let error =
            install(&step(&["sh", "-c", "echo $HOW; echo broken >&2; exit 4"]), Privilege::Root).unwrap_err();
        let text = error.to_string();
        for part in ["exit status: 4", "quietly", "broken", "Try elsewhere."] {
            assert!(text.contains(part), "{text}");
        }
    }
}
