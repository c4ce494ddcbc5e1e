//! What is needed of a bundle's `config.json` (OCI runtime specification, config.md).
//!
//! Each part is read by itself. A value that this program does not know, such as the capability or the type of namespace
//! of a newer kernel, costs nothing but itself.

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

/// The capabilities without which something still separates the container's root from the host's.
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

/// With its type by name, whatever types there are.
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
    /// It is there, and has another form.
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

    /// Where the container's root file system is on the host.
    pub(crate) fn rootfs(&self) -> Option<&PathBuf> {
        self.root.present().map(Root::path)
    }

    /// What is mounted from the host's file system.
    pub(crate) fn mount_sources(&self) -> impl Iterator<Item = &Path> {
        let mounts = self.mounts.present().map_or(&[][..], Vec::as_slice);
        mounts.iter().filter_map(|mount| mount.source().as_deref())
    }

    /// The cgroup that the runtime is to make, in the words of its cgroup driver.
    pub(crate) fn cgroups_path(&self) -> Option<&str> {
        self.linux.present()?.cgroups_path.present().map(String::as_str)
    }

    /// Whether nothing keeps the container's root from being the host's: no user namespace of its own, and the
    /// capabilities for all else. The names are those that engines write; oci-spec takes `sys_admin` as well, which runc
    /// grants nothing for.
    pub(crate) fn is_privileged(&self) -> bool {
        let capabilities = self.process.present().and_then(|process| process.capabilities.present());
        let bounding = capabilities.and_then(|capabilities| capabilities.bounding.present());
        bounding.is_some_and(|bounding| {
            PRIVILEGES.iter().all(|needed| bounding.iter().any(|granted| granted == needed))
        }) && !self.may_have_user_namespace()
    }

    /// What is not understood may be one.
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
    fn privileged_is_what_has_every_capability_that_matters_and_no_user_namespace() {
        assert!(privileged(ALL, r#"{"type":"mount"}"#));
        assert!(!privileged(ALL, r#"{"type":"mount"},{"type":"user"}"#));
        assert!(!privileged(r#""CAP_SYS_ADMIN","CAP_SYS_PTRACE""#, r#"{"type":"mount"}"#));
        assert!(!privileged(&ALL.replace("CAP_SYS_RAWIO", "CAP_SYs_RAWIO"), r#"{"type":"mount"}"#));
        assert!(!parse("{}").is_privileged());
    }

    #[test]
    fn names_of_a_newer_kernel_change_nothing() {
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
    fn namespaces_that_are_not_understood_are_no_privilege() {
        for namespaces in [r#""user""#, r#"{"type":7}"#, "7"] {
            assert!(!privileged(ALL, namespaces), "{namespaces}");
        }
        let json = format!(r#"{{"process":{{"capabilities":{{"bounding":[{ALL}]}}}},"linux":7}}"#);
        assert!(!parse(&json).is_privileged());
    }

    #[test]
    fn a_list_is_no_configuration() {
        for json in [r#"[{"io.container.manager":"libpod"}]"#, "[null]", "[]", "7", ""] {
            assert!(ConfigJson::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error() {
        let json = format!("{}{}", r#"{"x":"#.repeat(100_000), "1");
        assert!(ConfigJson::parse(json.as_bytes()).is_err());
    }
}
