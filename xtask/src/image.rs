//! The agent's container image, of the static binary and nothing else (`deploy/Dockerfile`).

use std::{
    env::consts::ARCH,
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{
    dist::{self, ARCHITECTURES, Target},
    process::{clean, find, name, quietly, root, succeed},
    setup::{self, Scope},
};

/// What it is made of, and where that takes its files from: `target/dist`.
const DOCKERFILE: &str = "deploy/Dockerfile";

/// How `cargo xtask image` was called.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to call it
    #[arg(long, default_value_t = tag())]
    tag: String,
    /// For this architecture, instead of this machine's
    #[arg(long, value_parser = ARCHITECTURES)]
    arch: Option<String>,
    /// With this engine, instead of the first that works
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

/// What builds images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Docker,
    Podman,
}

impl Engine {
    const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    pub(crate) fn command(self) -> Command {
        clean(OsStr::new(self.name()))
    }

    /// Whether it is there and answers: docker's client alone is not enough.
    pub(crate) fn works(self) -> bool {
        let info = || self.command().arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
        find(self.name()).is_some() && info().is_ok_and(|status| status.success())
    }

    /// The command that builds the image from what is in `context`.
    fn build(self, target: &Target, tag: &str, context: &Path) -> Command {
        let mut command = self.command();
        command.arg("build").arg("--file").arg(root().join(DOCKERFILE)).args(["--tag", tag]);
        command.args(["--platform", &format!("linux/{}", target.platform)]);
        // Old builders do not know it of themselves.
        command.args(["--build-arg", &format!("TARGETARCH={}", target.platform)]);
        command.args(["--build-arg", &format!("VERSION={}", dist::VERSION)]);
        command.arg(context);
        command
    }
}

/// What the image of this version is called.
pub(crate) fn tag() -> String {
    format!("tracer:{}", dist::VERSION)
}

/// Builds the binary and the image, and says what it is called.
pub(crate) fn run(options: &Options) -> Result<String> {
    let engine = options
        .engine
        .or_else(|| Engine::ALL.into_iter().find(|engine| engine.works()))
        .context("nothing here builds images: install podman, or docker and start its daemon")?;
    let target = options.arch.as_deref().map_or_else(Target::here, Target::of)?;
    setup::ensure(Scope::Image)?;
    build(engine, target, &options.tag)?;
    let size = quietly(engine.command().args(["image", "inspect", "--format", "{{.Size}}", &options.tag]))?;
    Ok(format!("{}  {} bytes, in {}\n", options.tag, size.trim(), engine.name()))
}

/// Builds the binary and the image.
pub(crate) fn build(engine: Engine, target: &Target, tag: &str) -> Result<()> {
    let context = dist::for_image(target)?;
    let mut command = engine.build(target, tag, &context);
    eprintln!("xtask: {}", name(&command));
    // What the engine says belongs to the log, not to what this command answers.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    succeed(&mut command).with_context(|| {
        if engine == Engine::Docker && target.arch != ARCH {
            "docker builds for another architecture with BuildKit only (docker-buildx)".to_owned()
        } else {
            format!("building the image {tag}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dist::TARGETS, layer};

    const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

    /// The instruction of that name, without it.
    fn instructions(name: &str) -> Vec<&'static str> {
        DOCKERFILE.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
    }

    #[test]
    fn what_is_copied_is_what_is_distributed() {
        let [added] = instructions("ADD")[..] else { panic!("one archive is added") };
        for target in &TARGETS {
            let (from, to) = added.split_once(' ').unwrap();
            let from = from.replace("${TARGETARCH}", target.platform);
            assert_eq!(from, format!("{}/{}", target.directory(), layer::NAME));
            assert_eq!(to, "/");
        }
        let kept = include_str!("../../deploy/Dockerfile.dockerignore");
        assert!(kept.lines().any(|line| line == format!("!linux-*/{}", layer::NAME)), "{kept}");
    }

    #[test]
    fn the_image_is_the_binary_alone_and_runs_it_as_no_other_user_has_it() {
        assert_eq!(instructions("FROM"), ["scratch"]);
        let manifest: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(include_str!("../../deploy/daemonset.yaml")).unwrap();
        let context = &manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        let [user, group] = ["runAsUser", "runAsGroup"].map(|key| context[key].as_u64().unwrap());
        assert_eq!(instructions("USER"), [format!("{user}:{group}")]);
        assert!(instructions("COPY").is_empty());
        assert_eq!(instructions("ENTRYPOINT"), ["[\"/tracer\"]"]);
        assert_eq!(instructions("CMD"), ["[\"agent\"]"]);
        assert!(instructions("RUN").is_empty(), "nothing of another architecture can be run");
        // Declared, or else they are empty.
        for argument in ["TARGETARCH", "VERSION"] {
            assert!(instructions("ARG").iter().any(|line| line.starts_with(argument)), "{argument}");
        }
    }

    #[test]
    fn what_is_deployed_is_this_image() {
        let manifest = include_str!("../../deploy/daemonset.yaml");
        let manifest: serde_yaml_ng::Value = serde_yaml_ng::from_str(manifest).unwrap();
        let container = &manifest["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], tag().as_str());
        let words = [instructions("ENTRYPOINT")[0], instructions("CMD")[0]];
        let words = words.map(|list| serde_yaml_ng::from_str::<Vec<String>>(list).unwrap()).concat();
        let command = container["command"].as_sequence().unwrap();
        let command: Vec<_> = command.iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(command, words);
    }

    #[test]
    fn each_engine_is_told_the_platform() {
        for engine in Engine::ALL {
            let command = engine.build(&TARGETS[1], "tracer:1", Path::new("/dist"));
            let line = name(&command);
            assert!(line.starts_with(&format!("{} build --file ", engine.name())), "{line}");
            assert!(line.ends_with(" /dist"), "{line}");
            for part in ["--tag tracer:1 ", "--platform linux/arm64 ", "--build-arg TARGETARCH=arm64 "] {
                assert!(line.contains(part), "{line}");
            }
        }
    }
}
