//! The workflows of `.github`: what they run is named by digest, since a tag can be moved, and what they ask of xtask exists.

use std::fs;

use clap::Parser as _;
use serde_yaml_ng::Value;

use crate::{Cli, process::root};

/// The text of each workflow, and what it says.
fn workflows() -> Vec<(String, Value)> {
    let files = fs::read_dir(root().join(".github/workflows")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.map(|text| (text.clone(), serde_yaml_ng::from_str(&text).unwrap())).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn workflows_name_actions_and_images_by_digest() {
    for (text, workflow) in workflows() {
        let used: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, used)| used).collect();
        assert!(!used.is_empty());
        for used in used {
            let named = used.split_once('@').and_then(|(_, version)| version.split_once(" # v"));
            let (commit, release) =
                named.unwrap_or_else(|| panic!("{used}: no commit, or no release behind it"));
            assert!(is_hex(commit, 40) && release.starts_with(|c: char| c.is_ascii_digit()), "{used}");
        }
        for (name, job) in workflow["jobs"].as_mapping().unwrap() {
            let Some(image) = job["container"].as_str() else { continue };
            let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
            assert!(digest.is_some_and(|digest| is_hex(digest, 64)), "{name:?}: {image}");
        }
    }
}

#[test]
fn no_step_of_a_workflow_finds_credentials_of_the_checkout() {
    for (_, workflow) in workflows() {
        assert_eq!(workflow["permissions"].as_mapping().unwrap().len(), 1);
        assert_eq!(workflow["permissions"]["contents"], "read");
        for (name, job) in workflow["jobs"].as_mapping().unwrap() {
            let steps = job["steps"].as_sequence().unwrap().iter();
            let is_checkout = |step: &&Value| {
                step["uses"].as_str().is_some_and(|used| used.starts_with("actions/checkout@"))
            };
            for step in steps.filter(is_checkout) {
                assert_eq!(step["with"]["persist-credentials"], false, "{name:?}");
            }
        }
    }
}

/// The commands of a job's steps, a line each.
fn commands(job: &Value) -> Vec<&str> {
    let steps = job["steps"].as_sequence().unwrap().iter();
    steps.filter_map(|step| step["run"].as_str()).flat_map(str::lines).collect()
}

#[test]
fn commands_of_xtask_exist() {
    let mut count = 0;
    for (_, workflow) in workflows() {
        for (_, job) in workflow["jobs"].as_mapping().unwrap() {
            for command in commands(job) {
                assert!(!command.contains("${{"), "{command}: the value could contain commands");
                let Some((_, arguments)) = command.split_once("cargo xtask ") else { continue };
                let words =
                    arguments.split_whitespace().take_while(|word| !word.starts_with(['>', '|', ')']));
                let words = words.map(|word| word.trim_matches(['"', ')']));
                Cli::try_parse_from(["xtask"].into_iter().chain(words)).unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn jobs_with_permissions_do_not_build_anything() {
    let release = workflows().into_iter().find(|(_, workflow)| workflow["name"] == "release").unwrap().1;
    let jobs = release["jobs"].as_mapping().unwrap();
    let (privileged, others): (Vec<_>, Vec<_>) = jobs.values().partition(|job| !job["permissions"].is_null());
    assert!(!privileged.is_empty() && others.into_iter().any(|job| !commands(job).is_empty()));
    for job in privileged {
        assert!(!commands(job).iter().any(|command| command.contains("cargo")), "{job:?}");
        let checks_out = |step: &Value| step["uses"].as_str().is_some_and(|used| used.contains("/checkout@"));
        assert!(!job["steps"].as_sequence().unwrap().iter().any(checks_out));
    }
}
