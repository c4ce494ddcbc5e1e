//! Credential plugins: programs of the kubeconfig that print a token or a client certificate
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>). One runs
//! once, and again when its credentials expire or are refused.

use std::{
    io::{IsTerminal as _, Read as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use kube::config::{Cluster, ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::kubectl::cluster::kuberc::{PluginPolicy, resolve};

/// Versions of the protocol.
const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";
/// The longest output of a plugin, in bytes.
const OUTPUT_MAX: u64 = 1 << 20;

/// A plugin that can be run.
#[derive(Debug)]
pub(super) struct Plugin {
    config: ExecConfig,
    command: String,
    version: String,
    /// The description of the cluster, if the plugin gets one.
    cluster: Option<ExecAuthCluster>,
}

/// The credentials that a plugin printed.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) token: Option<SecretString>,
    /// A certificate and its key, in PEM.
    pub(super) identity: Option<(String, SecretString)>,
    pub(super) expires: Option<Timestamp>,
}

/// The format of `$KUBERNETES_EXEC_INFO` and of the output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, skip_deserializing)]
    spec: Spec,
    #[serde(default, skip_serializing)]
    status: Option<Status>,
}

#[derive(Default, Serialize)]
struct Spec {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ExecAuthCluster>,
    interactive: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Plugin {
    /// Checks its configuration; it is not run yet.
    pub(super) fn new(config: ExecConfig, cluster: &Cluster, user: &str) -> Result<Self> {
        let command = config.command.clone().filter(|command| !command.is_empty());
        let command =
            command.with_context(|| format!("the credential plugin of user {user:?} has no command"))?;
        let plugin = || format!("the credential plugin {command:?} of user {user:?}");
        let version = config.api_version.clone().unwrap_or_default();
        ensure!(
            version == V1 || version == V1BETA1,
            "{}: unknown apiVersion {version:?}; expected {V1} or {V1BETA1}",
            plugin()
        );
        ensure!(
            config.interactive_mode.is_some() || version == V1BETA1,
            "{}: interactiveMode is missing; set it to Never, IfAvailable or Always",
            plugin()
        );
        PluginPolicy::find().and_then(|policy| policy.allows(&command, resolve)).with_context(plugin)?;
        let cluster = config.provide_cluster_info.then(|| ExecAuthCluster::try_from(cluster)).transpose();
        Ok(Self { cluster: cluster.with_context(plugin)?, config, command, version })
    }

    /// Runs it. It inherits standard error, and standard input if it may be interactive.
    pub(super) fn run(&self) -> Result<Credentials> {
        let context = || format!("the kubeconfig's credential plugin {:?}", self.command);
        self.run_once().with_context(context)
    }

    fn run_once(&self) -> Result<Credentials> {
        let is_terminal = std::io::stdin().is_terminal();
        let interactive = match self.config.interactive_mode {
            Some(ExecInteractiveMode::Never) => false,
            Some(ExecInteractiveMode::IfAvailable) | None => is_terminal,
            Some(ExecInteractiveMode::Always) => {
                ensure!(
                    is_terminal,
                    "it is interactive (interactiveMode: Always), but standard input is not a terminal"
                );
                true
            }
        };
        let info = ExecCredential {
            api_version: self.version.clone(),
            kind: "ExecCredential".to_owned(),
            spec: Spec { cluster: self.cluster.clone(), interactive },
            status: None,
        };
        let Some(program) = resolve(&self.command) else { bail!(self.not_installed()) };
        let mut command = Command::new(program);
        command.args(self.config.args.iter().flatten());
        command.envs(
            self.config
                .env
                .iter()
                .flatten()
                .filter_map(|variable| Some((variable.get("name")?, variable.get("value")?))),
        );
        command.env("KUBERNETES_EXEC_INFO", serde_json::to_string(&info)?);
        command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("cannot run it")?;
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(OUTPUT_MAX + 1).read_to_end(&mut printed).context("reading its output")?;
        }
        // A plugin that still writes fails, since its output is closed.
        let status = child.wait().context("waiting for it")?;
        ensure!(printed.len() as u64 <= OUTPUT_MAX, "it prints more than {OUTPUT_MAX} bytes");
        ensure!(status.success(), "it failed ({status}); see above for its messages");
        self.parse(&printed)
    }

    /// The error if the plugin does not exist, with the hint of the kubeconfig.
    fn not_installed(&self) -> String {
        let hint = self.config.install_hint.as_deref().unwrap_or_default().trim();
        let text = "it is not installed (No such file or directory)";
        if hint.is_empty() { text.to_owned() } else { format!("{text}; the kubeconfig's hint:\n{hint}") }
    }

    fn parse(&self, printed: &[u8]) -> Result<Credentials> {
        // Usually JSON; client-go accepts YAML as well.
        let credential: ExecCredential =
            serde_yaml_ng::from_slice(printed).context("it does not print an ExecCredential")?;
        ensure!(
            credential.kind == "ExecCredential",
            "it prints a {:?}, not an ExecCredential",
            credential.kind
        );
        ensure!(
            credential.api_version == self.version,
            "the kubeconfig expects {}, but it prints {:?}",
            self.version,
            credential.api_version
        );
        let status = credential.status.context("it prints no status")?;
        let filled = |value: Option<String>| value.filter(|value| !value.is_empty());
        let identity = match (filled(status.client_certificate_data), filled(status.client_key_data)) {
            (Some(certificate), Some(key)) => Some((certificate, SecretString::from(key))),
            (None, None) => None,
            _ => bail!("it prints one of clientCertificateData and clientKeyData without the other"),
        };
        let token = filled(status.token).map(SecretString::from);
        ensure!(token.is_some() || identity.is_some(), "it prints neither a token nor a client certificate");
        let expires = filled(status.expiration_timestamp).map(|time| {
            time.parse::<Timestamp>()
                .with_context(|| format!("its expirationTimestamp {time:?} is not a time"))
        });
        Ok(Credentials { token, identity, expires: expires.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;

    fn config(script: &str) -> ExecConfig {
        serde_json::from_value(json!({
            "apiVersion": V1, "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never",
            "env": [{"name": "X", "value": "of-env"}],
        }))
        .unwrap()
    }

    fn run(config: ExecConfig) -> Result<Credentials> {
        let cluster = Cluster { server: Some("https://s".into()), ..Cluster::default() };
        Plugin::new(config, &cluster, "alice")?.run()
    }

    fn refused(script: &str) -> String {
        format!("{:#}", run(config(script)).unwrap_err())
    }

    fn print(status: &serde_json::Value) -> String {
        let credential = json!({"apiVersion": V1, "kind": "ExecCredential", "status": status});
        format!("echo '{credential}'")
    }

    #[test]
    fn tokens_certificates_and_expiry_are_read() {
        let status = json!({"token": "t", "expirationTimestamp": "2026-11-28T00:00:00Z"});
        let credentials = run(config(&print(&status))).unwrap();
        assert_eq!(credentials.token.unwrap().expose_secret(), "t");
        assert_eq!(credentials.expires.unwrap().to_string(), "2026-11-28T00:00:00Z");
        let status = json!({"clientCertificateData": "c", "clientKeyData": "k"});
        assert_eq!(run(config(&print(&status))).unwrap().identity.unwrap().0, "c");
    }

    #[test]
    fn the_plugin_gets_environment_and_cluster() {
        let script = print(&json!({"token": "TOKEN"})).replace("TOKEN", "'\"$X\"'");
        assert_eq!(run(config(&script)).unwrap().token.unwrap().expose_secret(), "of-env");
        let script = "case \"$KUBERNETES_EXEC_INFO\" in *'\"server\":\"https://s\"'*'\"interactive\":false'*) exit 7;; esac";
        let mut with_cluster = config(script);
        with_cluster.provide_cluster_info = true;
        assert!(format!("{:#}", run(with_cluster).unwrap_err()).contains("exit status: 7"));
    }

    #[test]
    fn errors_of_a_plugin_are_reported() {
        assert!(refused("exit 3").contains("\"/bin/sh\": it failed (exit status: 3)"));
        assert!(refused("echo x").contains("ExecCredential"));
        assert!(refused("echo '{}'").contains("not an ExecCredential"));
        assert!(refused(&print(&serde_json::Value::Null)).contains("no status"));
        assert!(refused(&print(&json!({}))).contains("neither a token"));
        assert!(refused(&print(&json!({"clientKeyData": "k"}))).contains("without the other"));
        assert!(
            refused(&print(&json!({"token": "t", "expirationTimestamp": "soon"}))).contains("not a time")
        );
        assert!(refused("yes").contains("more than"));
        let beta = format!(
            "echo '{}'",
            json!({"apiVersion": V1BETA1, "kind": "ExecCredential", "status": {"token": "t"}})
        );
        assert!(refused(&beta).contains("v1beta1"));
    }

    #[test]
    fn errors_of_a_plugins_configuration_are_reported() {
        let wrong = |change: &dyn Fn(&mut ExecConfig)| {
            let mut config = config("true");
            change(&mut config);
            format!("{:#}", run(config).unwrap_err())
        };
        assert!(wrong(&|config| config.interactive_mode = None).contains("interactiveMode is missing"));
        assert!(wrong(&|config| config.api_version = Some("v9".into())).contains("unknown apiVersion"));
        assert!(wrong(&|config| config.command = None).contains("no command"));
        let missing = wrong(&|config| {
            config.command = Some("no-such-plugin".into());
            config.install_hint = Some("get it from us".into());
        });
        assert!(missing.contains("not installed") && missing.contains("get it from us"), "{missing}");
    }
}
