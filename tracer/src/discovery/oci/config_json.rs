//! The needed parts of a bundle's `config.json` (OCI runtime specification, config.md).
//!
//! Each part is parsed separately. A value that this program does not know, such as the capability or the type of namespace
//! of a newer kernel, affects only itself.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Mount, Root};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;

use crate::model::json::is_object;

/// The capabilities that together make the container's root equivalent to the host's.
const PRIVILEGES: [&str; 5] =
    ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH"];

/// A `config.json`, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigJson {
    annotations: Option<HashMap<String, String>>,
    hostname: Part<String>,
    root: Part<Root>,
    mounts: Part<Vec<Mount>>,
    process: Part<Process>,
    linux: Part<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    capabilities: Part<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    bounding: Part<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Part<Vec<Namespace>>,
    cgroups_path: Part<String>,
}

/// A namespace, with any type.
#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
}

/// A part of a file.
#[derive(Debug, Default)]
enum Part<T> {
    #[default]
    Absent,
    Present(T),
    /// Present, in another form.
    NotUnderstood,
}

impl<T> Part<T> {
    const fn present(&self) -> Option<&T> {
        if let Self::Present(part) = self { Some(part) } else { None }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Self::Absent,
            value => serde_json::from_value(value).map_or(Self::NotUnderstood, Self::Present),
        })
    }
}

impl ConfigJson {
    /// From the bytes of the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        if !is_object(bytes) {
            return Err(serde_json::Error::custom("not a JSON object"));
        }
        serde_json::from_slice(bytes)
    }

    /// An annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The host name within the container.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.hostname.present().map(String::as_str)
    }

    /// The path of the container's root file system on the host.
    pub(crate) fn rootfs(&self) -> Option<&PathBuf> {
        self.root.present().map(Root::path)
    }

    /// The sources of mounts.
    pub(crate) fn mount_sources(&self) -> impl Iterator<Item = &Path> {
        let mounts = self.mounts.present().map_or(&[][..], Vec::as_slice);
        mounts.iter().filter_map(|mount| mount.source().as_deref())
    }

    /// The cgroup that the runtime is to create, in the form of its cgroup driver.
    pub(crate) fn cgroups_path(&self) -> Option<&str> {
        self.linux.present()?.cgroups_path.present().map(String::as_str)
    }

    /// Whether the container's root is equivalent to the host's: it has no user namespace of its own, and all capabilities that
    /// matter. The names are those that engines write; oci-spec accepts `sys_admin` as well, for which
    /// runc grants nothing.
    pub(crate) fn is_privileged(&self) -> bool {
        let capabilities = self.process.present().and_then(|process| process.capabilities.present());
        let bounding = capabilities.and_then(|capabilities| capabilities.bounding.present());
        bounding.is_some_and(|bounding| {
            PRIVILEGES.iter().all(|needed| bounding.iter().any(|granted| granted == needed))
        }) && !self.may_have_user_namespace()
    }

    /// A part that is not understood may be one.
    fn may_have_user_namespace(&self) -> bool {
        match &self.linux {
            Part::Absent => false,
            Part::NotUnderstood => true,
            Part::Present(linux) => match &linux.namespaces {
                Part::Absent => false,
                Part::NotUnderstood => true,
                Part::Present(namespaces) => namespaces.iter().any(|namespace| namespace.kind == "user"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    fn parse(json: &str) -> ConfigJson {
        ConfigJson::parse(json.as_bytes()).unwrap()
    }

    fn privileged(capabilities: &str, namespaces: &str) -> bool {
        let json = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/","capabilities":{{"bounding":[{capabilities}]}}}},
            "linux":{{"namespaces":[{namespaces}]}}}}"#
        );
        parse(&json).is_privileged()
    }

    const ALL: &str =
        r#""CAP_SYS_ADMIN","CAP_SYS_MODULE","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_DAC_READ_SEARCH""#;

    #[test]
    fn privileged_means_all_relevant_capabilities_and_no_user_namespace() {
        assert!(privileged(ALL, r#"{"type":"mount"}"#));
        assert!(!privileged(ALL, r#"{"type":"mount"},{"type":"user"}"#));
        assert!(!privileged(r#""CAP_SYS_ADMIN","CAP_SYS_PTRACE""#, r#"{"type":"mount"}"#));
        assert!(!privileged(&ALL.replace("CAP_SYS_RAWIO", "CAP_SYs_RAWIO"), r#"{"type":"mount"}"#));
        assert!(!parse("{}").is_privileged());
    }

    #[test]
    fn unknown_names_of_newer_kernel_change_nothing() {
        let newer = format!(r#"{ALL},"CAP_UNHEARD_OF""#);
        assert!(privileged(&newer, r#"{"type":"mount"},{"type":"unheard-of"}"#));
        assert!(!privileged(&newer, r#"{"type":"user"},{"type":"unheard-of"}"#));
        let json = r#"{"ociVersion":"9","hostname":"h","linux":{"namespaces":[{"type":"unheard-of"}],"cgroupsPath":"/c"},
            "annotations":{"a":"b"}}"#;
        assert!(serde_json::from_str::<Spec>(json).is_err());
        let config = parse(json);
        assert_eq!(config.annotation("a"), Some("b"));
        assert_eq!((config.hostname(), config.cgroups_path()), (Some("h"), Some("/c")));
    }

    #[test]
    fn namespaces_in_unknown_form_give_no_privilege() {
        for namespaces in [r#""user""#, r#"{"type":7}"#, "7"] {
            assert!(!privileged(ALL, namespaces), "{namespaces}");
        }
        let json = format!(r#"{{"process":{{"capabilities":{{"bounding":[{ALL}]}}}},"linux":7}}"#);
        assert!(!parse(&json).is_privileged());
    }

    #[test]
    fn json_list_is_rejected() {
        for json in [r#"[{"io.container.manager":"libpod"}]"#, "[null]", "[]", "7", ""] {
            assert!(ConfigJson::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn unbounded_nesting_is_an_error() {
        let json = format!("{}{}", r#"{"x":"#.repeat(100_000), "1");
        assert!(ConfigJson::parse(json.as_bytes()).is_err());
    }
}
