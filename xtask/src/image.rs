//! The agent's container image: the static binary and nothing else (`deploy/Dockerfile`).

use std::{env::consts::ARCH, fs, path::Path};

use anyhow::{Context as _, Result};
use xshell::{Cmd, Shell, cmd};

use crate::{
    dist::{self, ARCHITECTURES, TARGETS, Target, VERSION},
    process::{as_root, quietly, root},
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
    /// Build for all architectures with podman into target/dist/image.oci.tar, and print NAME by digest
    ///
    /// To push it: skopeo copy --all --preserve-digests oci-archive:target/dist/image.oci.tar docker://NAME:TAG
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tag", "arch", "engine"])]
    index: Option<String>,
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
    setup::ensure(sh, Scope::Dist)?;
    if let Some(name) = &options.index {
        println!("{name}@{}", index(sh)?);
        return Ok(());
    }
    let first = || ENGINES.into_iter().find(|engine| works(sh, engine));
    let engine = options.engine.as_deref().or_else(first);
    let engine =
        engine.context("no engine to build images: install podman, or docker and start its daemon")?;
    let target = options.arch.as_deref().map_or_else(Target::here, Target::of)?;
    build(sh, sh.cmd(engine), target, &options.tag)?;
    let tag = &options.tag;
    let size = "{{.Size}}";
    let size = quietly(cmd!(sh, "{engine} image inspect --format {size} {tag}"))?;
    println!("{tag}  {} bytes, in {engine}", size.trim());
    Ok(())
}

/// Builds the image for all architectures, an OCI archive with an image index: returns the digest, which it keeps in
/// every registry. As root, since only root can unpack the capabilities of `/tracer`.
fn index(sh: &Shell) -> Result<String> {
    let podman = |words: &[&str]| Ok::<_, anyhow::Error>(as_root(sh, Path::new("podman"), &[])?.args(words));
    let (index, scratch) = (format!("localhost/{}-index", tag()), tempfile::tempdir()?);
    // If an earlier run failed, it exists.
    let _ = quietly(podman(&["manifest", "rm", &index])?);
    quietly(podman(&["manifest", "create", &index])?)?;
    for target in &TARGETS {
        let tag = format!("localhost/{}-{}", tag(), target.platform);
        build(sh, podman(&[])?, target, &tag)?;
        quietly(podman(&["manifest", "add", &index, &format!("containers-storage:{tag}")])?)?;
    }
    let (archive, digest) = (dist::directory().join("image.oci.tar"), scratch.path().join("digest"));
    let _ = fs::remove_file(&archive);
    let push = podman(&["manifest", "push", "--all", &index, "--digestfile"])?.arg(&digest);
    quietly(push.arg(format!("oci-archive:{}", archive.display())))?;
    // With it, podman 4 cannot list images.
    quietly(podman(&["manifest", "rm", &index])?)?;
    Ok(fs::read_to_string(digest)?)
}

/// Builds the binary and, with this engine, the image.
pub(crate) fn build(sh: &Shell, engine: Cmd<'_>, target: &Target, tag: &str) -> Result<()> {
    dist::tracer(sh, target)?;
    let context = dist::directory();
    let (dockerfile, platform, name) =
        (root().join("deploy/Dockerfile"), target.platform, engine.to_string());
    // Old builders do not set TARGETARCH by themselves.
    let arguments = [
        format!("--platform=linux/{platform}"),
        format!("--build-arg=TARGETARCH={platform}"),
        format!("--build-arg=VERSION={VERSION}"),
        format!("--tag={tag}"),
    ];
    let build = engine.arg("build").args(arguments).arg("--file").arg(dockerfile).arg(context);
    quietly(build).map(drop).with_context(|| {
        if name == "docker" && target.arch != ARCH {
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
