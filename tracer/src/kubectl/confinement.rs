//! Values of options of `deploy`: the seccomp profile and the SELinux type of the agents.

use k8s_openapi::api::core::v1::SeccompProfile;

/// A seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seccomp {
    Unconfined,
    /// The container engine's default profile.
    RuntimeDefault,
    /// A file on each node, below the kubelet's directory of profiles.
    Localhost(String),
}

impl Seccomp {
    /// Parses the value of `--seccomp-profile`, in the format of the annotations before Kubernetes 1.19.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "unconfined" => Ok(Self::Unconfined),
            "runtime/default" => Ok(Self::RuntimeDefault),
            _ => match text.strip_prefix("localhost/") {
                Some(file) if is_relative(file) => Ok(Self::Localhost(file.to_owned())),
                Some(_) => Err("expected a relative path without .. after localhost/".to_owned()),
                None => Err("expected unconfined, runtime/default or localhost/FILE".to_owned()),
            },
        }
    }

    /// The profile in the specification of a pod.
    pub(super) fn profile(&self) -> SeccompProfile {
        let (type_, localhost_profile) = match self {
            Self::Unconfined => ("Unconfined", None),
            Self::RuntimeDefault => ("RuntimeDefault", None),
            Self::Localhost(file) => ("Localhost", Some(file.clone())),
        };
        SeccompProfile { type_: type_.to_owned(), localhost_profile }
    }
}

/// Whether the API server accepts a path.
fn is_relative(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Parses the value of `--selinux-type`.
pub(super) fn parse_selinux_type(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if text.is_empty() || !text.chars().all(is_allowed) {
        return Err("expected the name of an SELinux type, such as spc_t or super_t".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seccomp_profiles_have_the_format_of_the_annotations() {
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
    fn an_selinux_type_is_a_name() {
        assert_eq!(parse_selinux_type("super_t").unwrap(), "super_t");
        for wrong in ["", "a b", "system_u:system_r:spc_t:s0"] {
            assert!(parse_selinux_type(wrong).is_err(), "{wrong}");
        }
    }
}
