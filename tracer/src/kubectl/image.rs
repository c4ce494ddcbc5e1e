//! The agents' image. `tracer/build.rs` compiles this module, too, to check the image of a release.

/// Rejects an image that nodes must not pull.
pub(super) fn check(image: Option<&str>) -> Result<(), String> {
    let Some(image) = image else {
        return Err("this build of kubectl-tracer has no release image: pass --image REGISTRY/NAME:TAG or \
                    --image REGISTRY/NAME@DIGEST (to build and push one: cargo xtask image, see docs/rollout.md)"
            .to_owned());
    };
    problem(image).map_or(Ok(()), |problem| {
        Err(format!(
            "the nodes cannot pull {image:?}: {problem}; push the image to a registry and pass --image \
             REGISTRY/NAME:TAG or --image REGISTRY/NAME@DIGEST"
        ))
    })
}

/// Why nodes must not pull an image: without a registry and a version, nodes may pull different images, or those of another
/// publisher.
fn problem(image: &str) -> Option<&'static str> {
    let (registry, rest) = image.split_once('/').unwrap_or(("", image));
    let is_registry = registry == "localhost" || registry.contains(['.', ':']);
    let is_version = rest.contains('@') || rest.rsplit('/').next().is_some_and(|name| name.contains(':'));
    match (is_registry, is_version) {
        (true, true) => None,
        (false, _) => Some("it has no registry"),
        (true, false) => Some("it has neither a tag nor a digest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_needs_a_registry_and_a_version() {
        for image in [
            "registry.example/tracer:1",
            "registry.example:5000/a/tracer:1",
            "localhost/tracer:0.1.0",
            "localhost:5000/tracer@sha256:0123",
            "registry.example/a/b/tracer:1@sha256:0123",
        ] {
            assert_eq!(check(Some(image)), Ok(()));
        }
        for image in ["tracer", "tracer:0.1.0", "a/tracer:1", "tracer@sha256:0123"] {
            assert_eq!(problem(image), Some("it has no registry"), "{image}");
            assert!(check(Some(image)).unwrap_err().contains("it has no registry"));
        }
        for image in ["registry.example/tracer", "registry.example:5000/a/tracer"] {
            assert_eq!(problem(image), Some("it has neither a tag nor a digest"), "{image}");
        }
    }

    #[test]
    fn a_build_without_release_image_requires_an_image() {
        let error = check(None).unwrap_err();
        assert!(
            error.starts_with("this build of kubectl-tracer has no release image: pass --image "),
            "{error}"
        );
    }
}
