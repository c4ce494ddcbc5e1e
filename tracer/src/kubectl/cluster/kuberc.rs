//! The user's preferences for kubectl, of which one is used: which credential plugins may run
//! (<https://kubernetes.io/docs/reference/kubectl/kuberc/>, observed with kubectl 1.36.4).

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// The version with the policy. Other versions are ignored, as kubectl does.
const VERSION: &str = "kubectl.config.k8s.io/v1beta1";

/// Which credential plugins may run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum PluginPolicy {
    #[default]
    All,
    None,
    /// These commands: paths, or names to look up in `$PATH`.
    Only(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preference {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    credential_plugin_policy: Option<String>,
    credential_plugin_allowlist: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "name")]
    command: Option<String>,
}

impl PluginPolicy {
    /// Reads `$KUBERC` or `~/.kube/kuberc`.
    pub(super) fn find() -> Result<Self> {
        let is_off =
            |name: &str, off: &str| env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case(off));
        if is_off("KUBECTL_KUBERC", "false") || is_off("KUBERC", "off") {
            return Ok(Self::All);
        }
        let named = env::var_os("KUBERC").filter(|path| !path.is_empty()).map(PathBuf::from);
        let (path, must_exist) = match (named, env::home_dir()) {
            (Some(path), _) => (path, true),
            (None, Some(home)) => (home.join(".kube/kuberc"), false),
            (None, None) => return Ok(Self::All),
        };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("in the preferences {}", path.display())),
            Err(error) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::All),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read the preferences {}", path.display()))
            }
        }
    }

    fn parse(text: &str) -> Result<Self> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let preference = Preference::deserialize(document).context("not a kuberc file")?;
            if preference.api_version == VERSION && preference.kind == "Preference" {
                return preference.policy();
            }
        }
        Ok(Self::All)
    }

    /// Returns an error if `command` must not run. `resolve` finds the program of a command.
    pub(super) fn allows(&self, command: &str, resolve: impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
        match self {
            Self::All => Ok(()),
            Self::None => bail!("credentialPluginPolicy of the kuberc file is DenyAll"),
            Self::Only(commands) => {
                let is_same = |allowed: &String| {
                    allowed == command || resolve(allowed).is_some_and(|path| Some(path) == resolve(command))
                };
                ensure!(
                    commands.iter().any(is_same),
                    "it is not in credentialPluginAllowlist of the kuberc file"
                );
                Ok(())
            }
        }
    }
}

impl Preference {
    fn policy(self) -> Result<PluginPolicy> {
        let commands = self.credential_plugin_allowlist.map(|entries| {
            let commands =
                entries.into_iter().map(|entry| entry.command.filter(|command| !command.is_empty()));
            commands.collect::<Option<Vec<_>>>().context("credentialPluginAllowlist has an empty entry")
        });
        let commands = commands.transpose()?;
        match (self.credential_plugin_policy.as_deref().unwrap_or_default(), commands) {
            ("" | "AllowAll", None) => Ok(PluginPolicy::All),
            ("DenyAll", None) => Ok(PluginPolicy::None),
            ("Allowlist", Some(commands)) if !commands.is_empty() => Ok(PluginPolicy::Only(commands)),
            ("Allowlist", _) => {
                bail!("credentialPluginPolicy is Allowlist, but credentialPluginAllowlist is empty")
            }
            (policy @ ("" | "AllowAll" | "DenyAll"), Some(_)) => {
                bail!("credentialPluginAllowlist requires credentialPluginPolicy: Allowlist, not {policy:?}")
            }
            (unknown, _) => {
                bail!("unknown credentialPluginPolicy {unknown:?}; expected AllowAll, DenyAll or Allowlist")
            }
        }
    }
}

/// The program of a command: a path, or the first one of that name in `$PATH`.
pub(super) fn resolve(command: &str) -> Option<PathBuf> {
    if command.contains('/') {
        let path = Path::new(command);
        return path.exists().then(|| path.to_owned());
    }
    let directories = env::var_os("PATH")?;
    // Not from the working directory, whose content is not trusted.
    let absolute = env::split_paths(&directories).filter(|directory| directory.is_absolute());
    absolute.map(|directory| directory.join(command)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<PluginPolicy> {
        PluginPolicy::parse(&format!("apiVersion: {VERSION}\nkind: Preference\n{text}\n"))
    }

    #[test]
    fn policies_have_kubectls_meaning() {
        assert_eq!(policy("").unwrap(), PluginPolicy::All);
        assert_eq!(policy("credentialPluginPolicy: AllowAll").unwrap(), PluginPolicy::All);
        assert_eq!(policy("credentialPluginPolicy: DenyAll").unwrap(), PluginPolicy::None);
        for key in ["name", "command"] {
            let text =
                format!("credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{{{key}: aws}}]");
            assert_eq!(policy(&text).unwrap(), PluginPolicy::Only(vec!["aws".into()]));
        }
        for wrong in [
            "credentialPluginPolicy: Allowlist",
            "credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: []",
            "credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{}]",
            "credentialPluginPolicy: Bad",
            "credentialPluginAllowlist: [{command: aws}]",
        ] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
        // Another version, or no kuberc file at all.
        let other =
            "apiVersion: kubectl.config.k8s.io/v1alpha1\nkind: Preference\ncredentialPluginPolicy: DenyAll\n";
        assert_eq!(PluginPolicy::parse(other).unwrap(), PluginPolicy::All);
        assert_eq!(PluginPolicy::parse("kind: x\n").unwrap(), PluginPolicy::All);
        assert!(PluginPolicy::parse("[").is_err());
    }

    #[test]
    fn the_allowlist_has_names_and_paths() {
        let policy = PluginPolicy::Only(vec!["sh".into(), "/opt/login".into()]);
        policy.allows("sh", resolve).unwrap();
        policy.allows(resolve("sh").unwrap().to_str().unwrap(), resolve).unwrap();
        policy.allows("/opt/login", resolve).unwrap();
        assert!(policy.allows("login", resolve).is_err());
        assert!(policy.allows("/opt/other", resolve).is_err());
        assert!(PluginPolicy::None.allows("sh", resolve).is_err());
    }
}
