//! A real API server: the cluster of the kubeconfig `TRACER_TEST_KUBECONFIG`, or an `etcd` and a `kube-apiserver` from the
//! folder `KUBEBUILDER_ASSETS`. That variable, and the flags, are those of envtest
//! (sigs.k8s.io/controller-runtime, pkg/internal/testing/controlplane), except for users and certificates: a static token
//! (`--token-auth-file`) instead of client certificates, and the certificate that kube-apiserver creates in
//! `--cert-dir`. There are no controllers and no nodes: objects are validated, defaulted and stored, and nothing acts on
//! them.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::wait::{self, Output};
use crate::{Launch, need, scratch};

/// The administrator's token.
const TOKEN: &str = "test-token";

/// The reason if there is none.
pub(crate) fn missing() -> Option<String> {
    if let Some(kubeconfig) = env::var_os("TRACER_TEST_KUBECONFIG").map(PathBuf::from) {
        return (!kubeconfig.is_file())
            .then(|| format!("TRACER_TEST_KUBECONFIG: {} is not a file", kubeconfig.display()));
    }
    let Some(assets) = assets() else {
        return Some(
            "no API server: set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver (see setup-envtest), or \
             TRACER_TEST_KUBECONFIG to the kubeconfig of a cluster"
                .into(),
        );
    };
    let absent = ["etcd", "kube-apiserver"].into_iter().find(|name| !assets.join(name).is_file());
    absent.map(|name| format!("KUBEBUILDER_ASSETS: {} has no {name}", assets.display())).or_else(|| {
        need::find("openssl").is_none().then(|| "openssl is missing: apt-get install openssl".into())
    })
}

fn assets() -> Option<PathBuf> {
    env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
}

/// A cluster, or an API server on its own. Processes that were started are killed when it is dropped.
pub struct Cluster {
    kubeconfig: PathBuf,
    // In this order: the API server is killed before etcd.
    _apiserver: Option<Process>,
    _etcd: Option<Process>,
    _dir: Option<scratch::Dir>,
}

impl Cluster {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// With its output, if it exits.
    #[track_caller]
    pub fn start() -> Self {
        if let Some(kubeconfig) = env::var_os("TRACER_TEST_KUBECONFIG") {
            let kubeconfig = PathBuf::from(kubeconfig);
            return Self { kubeconfig, _apiserver: None, _etcd: None, _dir: None };
        }
        let assets = assets().expect("checked before");
        let dir = scratch::Dir::new("envtest");
        let at = |name: &str| dir.path().join(name);
        let etcd_url = format!("http://127.0.0.1:{}", free_port());
        let etcd = Process::start(
            &assets.join("etcd"),
            &at("etcd.log"),
            &[
                ("data-dir", at("etcd").display().to_string()),
                ("listen-peer-urls", format!("http://127.0.0.1:{}", free_port())),
                ("listen-client-urls", etcd_url.clone()),
                ("advertise-client-urls", etcd_url.clone()),
            ],
        );
        let key = at("service-accounts.key");
        let bits = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        wait::output(Command::new("openssl").arg("genpkey").args(bits).arg("-out").arg(&key), wait::LIMIT)
            .success();
        let tokens = at("tokens.csv");
        fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n")).expect("our own directory");
        let (port, certificates) = (free_port(), at("certificates"));
        let url = format!("https://127.0.0.1:{port}");
        let mut apiserver = Process::start(
            &assets.join("kube-apiserver"),
            &at("kube-apiserver.log"),
            &[
                ("etcd-servers", etcd_url),
                ("bind-address", "127.0.0.1".into()),
                ("advertise-address", "127.0.0.1".into()),
                ("secure-port", port.to_string()),
                ("cert-dir", certificates.display().to_string()),
                ("token-auth-file", tokens.display().to_string()),
                ("authorization-mode", "RBAC".into()),
                ("service-cluster-ip-range", "10.0.0.0/24".into()),
                ("allow-privileged", "true".into()),
                // There is no controller to create the ServiceAccounts of pods.
                ("disable-admission-plugins", "ServiceAccount".into()),
                ("service-account-issuer", url.clone()),
                // A private key includes the public one.
                ("service-account-key-file", key.display().to_string()),
                ("service-account-signing-key-file", key.display().to_string()),
            ],
        );
        let kubeconfig = at("kubeconfig");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": url,
                "certificate-authority": certificates.join("apiserver.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        });
        fs::write(&kubeconfig, config.to_string()).expect("our own directory");
        wait::until("an API server that is ready", || {
            apiserver.assert_runs();
            let is_ready = query(&kubeconfig, &["get", "--raw", "/readyz"]).status.success();
            is_ready.then_some(())
        });
        Self { kubeconfig, _apiserver: Some(apiserver), _etcd: Some(etcd), _dir: Some(dir) }
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `kubectl tracer`, with its agents in this namespace.
    pub fn tracer(&self, namespace: &str, arguments: &[&str]) -> Output {
        let place = format!("--tracer-namespace={namespace}");
        Launch::kubectl(&self.kubeconfig, &[arguments, &[&place]].concat()).output()
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        query(&self.kubeconfig, arguments)
    }
}

/// A unique name for a namespace.
pub fn namespace() -> String {
    scratch::unique("tracer").to_lowercase()
}

fn query(kubeconfig: &Path, arguments: &[&str]) -> Output {
    wait::output(Command::new("kubectl").arg("--kubeconfig").arg(kubeconfig).args(arguments), wait::LIMIT)
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
    listener.local_addr().expect("an address").port()
}

/// A server process with its output in a file.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(program: &Path, log: &Path, flags: &[(&str, String)]) -> Self {
        let output = File::create(log).expect("our own directory");
        let mut command = Command::new(program);
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a duplicate")).stderr(output);
        Self { child: wait::spawn(&mut command), log: log.to_owned() }
    }

    #[track_caller]
    fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            panic!("ended with {status}: {}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is ours and not reaped, unless it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
