//! The agent's container image: the static binary and nothing else (`deploy/Dockerfile`).

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{
    dist::{self, ARCHITECTURES, Target, VERSION},
    process::{quietly, root},
    setup::{self, Scope},
};

const ENGINES: [&str; 2] = ["docker", "podman"];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Name of the image
    #[arg(long, default_value_t = tag())]
    tag: String,
    /// Build for this architecture instead of this machine's
    #[arg(long, value_parser = ARCHITECTURES)]
    arch: Option<String>,
    /// Use this engine instead of the first that works
    #[arg(long, value_parser = ENGINES)]
    engine: Option<String>,
}

/// Name of the image of this version.
pub(crate) fn tag() -> String {
    format!("tracer:{VERSION}")
}

/// Whether the engine is there and answers: docker's client alone is not enough.
pub(crate) fn works(sh: &Shell, engine: &str) -> bool {
    quietly(cmd!(sh, "{engine} info")).is_ok()
}

/// `cargo xtask image`.
pub(crate) fn run(sh: &Shell, options: &Options) -> Result<()> {
    let first = || ENGINES.into_iter().find(|engine| works(sh, engine));
    let engine = options.engine.as_deref().or_else(first);
    let engine =
        engine.context("no engine to build images: install podman, or docker and start its daemon")?;
    let target = options.arch.as_deref().map_or_else(Target::here, Target::of)?;
    setup::ensure(sh, Scope::Dist)?;
    build(sh, engine, target, &options.tag)?;
    let tag = &options.tag;
    let size = "{{.Size}}";
    let size = quietly(cmd!(sh, "{engine} image inspect --format {size} {tag}"))?;
    println!("{tag}  {} bytes, in {engine}", size.trim());
    Ok(())
}

/// Builds the binary and the image.
pub(crate) fn build(sh: &Shell, engine: &str, target: &Target, tag: &str) -> Result<()> {
    dist::tracer(sh, target)?;
    let context = dist::directory();
    let (dockerfile, platform) = (root().join("deploy/Dockerfile"), target.platform);
    // Old builders do not set TARGETARCH by themselves.
    let build = cmd!(
        sh,
        "{engine} build --file {dockerfile} --tag {tag} --platform linux/{platform} --build-arg TARGETARCH={platform}
         --build-arg VERSION={VERSION} {context}"
    );
    build.run().with_context(|| {
        if engine == "docker" && target.arch != ARCH {
            "docker builds for another architecture with BuildKit only (docker-buildx)".to_owned()
        } else {
            format!("cannot build the image {tag}")
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_yaml_ng::Value;

    use super::*;
    use crate::archive::IMAGE_LAYER;

    const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

    /// The arguments of each instruction of that name.
    fn instructions(name: &str) -> Vec<&'static str> {
        DOCKERFILE.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
    }

    #[test]
    fn the_image_is_the_distributed_layer_alone() {
        assert_eq!(instructions("FROM"), ["scratch"]);
        assert_eq!(instructions("ADD"), [format!("linux-${{TARGETARCH}}/{IMAGE_LAYER} /")]);
        assert!(instructions("COPY").is_empty());
        assert!(instructions("RUN").is_empty(), "nothing of another architecture can be run");
        let kept = include_str!("../../deploy/Dockerfile.dockerignore");
        assert!(kept.lines().any(|line| line == format!("!linux-*/{IMAGE_LAYER}")), "{kept}");
        // Undeclared arguments are empty.
        for argument in ["TARGETARCH", "VERSION"] {
            assert!(instructions("ARG").iter().any(|line| line.starts_with(argument)), "{argument}");
        }
    }

    #[test]
    fn what_is_deployed_is_this_image() {
        let manifest: Value = serde_yaml_ng::from_str(include_str!("../../deploy/daemonset.yaml")).unwrap();
        let container = &manifest["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], tag().as_str());
        let [user, group] =
            ["runAsUser", "runAsGroup"].map(|key| container["securityContext"][key].as_u64().unwrap());
        assert_eq!(instructions("USER"), [format!("{user}:{group}")]);
        let words = [instructions("ENTRYPOINT")[0], instructions("CMD")[0]];
        let words = words.map(|list| serde_yaml_ng::from_str::<Vec<Value>>(list).unwrap()).concat();
        assert_eq!(container["command"].as_sequence().unwrap(), &words);
    }
}
