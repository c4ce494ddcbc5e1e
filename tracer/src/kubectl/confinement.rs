//! What confines an agent besides its capabilities, and which image it may be: values of options of `deploy`.

use k8s_openapi::api::core::v1::SeccompProfile;

/// Which system calls an agent may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seccomp {
    /// All.
    Unconfined,
    /// Those that the container engine allows.
    RuntimeDefault,
    /// Those of a profile that is on each node, below the kubelet's directory of profiles.
    Localhost(String),
}

impl Seccomp {
    /// From the value of `--seccomp-profile`, as annotations had it before Kubernetes 1.19.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "unconfined" => Ok(Self::Unconfined),
            "runtime/default" => Ok(Self::RuntimeDefault),
            _ => match text.strip_prefix("localhost/") {
                Some(file) if is_relative(file) => Ok(Self::Localhost(file.to_owned())),
                Some(_) => {
                    Err("behind localhost/ comes a path without .. and without / at its ends".to_owned())
                }
                None => Err("expected unconfined, runtime/default or localhost/FILE".to_owned()),
            },
        }
    }

    /// As a pod has it.
    pub(super) fn profile(&self) -> SeccompProfile {
        let (type_, localhost_profile) = match self {
            Self::Unconfined => ("Unconfined", None),
            Self::RuntimeDefault => ("RuntimeDefault", None),
            Self::Localhost(file) => ("Localhost", Some(file.clone())),
        };
        SeccompProfile { type_: type_.to_owned(), localhost_profile }
    }
}

/// As the API server wants it.
fn is_relative(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// A type of SELinux, from the value of `--selinux-type`.
pub(super) fn parse_selinux_type(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if text.is_empty() || !text.chars().all(is_allowed) {
        return Err("expected the name of a type, such as spc_t or super_t".to_owned());
    }
    Ok(text.to_owned())
}

/// What is wrong with an image that every node is to pull: nodes that are not told where from, or which version, take
/// different ones, or somebody else's.
pub(super) fn image_problem(image: &str) -> Option<&'static str> {
    let (registry, rest) = image.split_once('/').unwrap_or(("", image));
    let is_registry = registry == "localhost" || registry.contains(['.', ':']);
    let is_version = rest.contains('@') || rest.rsplit('/').next().is_some_and(|name| name.contains(':'));
    match (is_registry, is_version) {
        (true, true) => None,
        (false, _) => Some("it names no registry"),
        (true, false) => Some("it names no tag and no digest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seccomp_profiles_are_written_as_ever() {
        let profile = |text: &str| serde_json::to_value(Seccomp::parse(text).unwrap().profile()).unwrap();
        assert_eq!(profile("unconfined"), serde_json::json!({"type": "Unconfined"}));
        assert_eq!(profile("runtime/default"), serde_json::json!({"type": "RuntimeDefault"}));
        assert_eq!(
            profile("localhost/profiles/tracer.json"),
            serde_json::json!({"type": "Localhost", "localhostProfile": "profiles/tracer.json"})
        );
        for wrong in ["", "Unconfined", "localhost/", "localhost//x", "localhost/../x", "tracer.json"] {
            assert!(Seccomp::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_selinux_type_is_a_name() {
        assert_eq!(parse_selinux_type("super_t").unwrap(), "super_t");
        for wrong in ["", "a b", "system_u:system_r:spc_t:s0"] {
            assert!(parse_selinux_type(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_has_a_registry_and_a_version() {
        for image in [
            "registry.example/tracer:1",
            "registry.example:5000/a/tracer:1",
            "localhost/tracer:0.1.0",
            "localhost:5000/tracer@sha256:0123",
            "ghcr.io/a/b/tracer:1@sha256:0123",
        ] {
            assert_eq!(image_problem(image), None, "{image}");
        }
        for image in ["tracer", "tracer:0.1.0", "a/tracer:1", "tracer@sha256:0123"] {
            assert_eq!(image_problem(image), Some("it names no registry"), "{image}");
        }
        for image in ["registry.example/tracer", "registry.example:5000/a/tracer"] {
            assert_eq!(image_problem(image), Some("it names no tag and no digest"), "{image}");
        }
    }
}
