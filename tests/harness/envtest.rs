//! A real API server: the cluster that `TRACER_TEST_KUBECONFIG` names, or an `etcd` and a `kube-apiserver` of one's own,
//! of the folder that `KUBEBUILDER_ASSETS` names. That variable, and the flags, are those of envtest
//! (sigs.k8s.io/controller-runtime, pkg/internal/testing/controlplane), but for users and certificates: a static token
//! (`--token-auth-file`) instead of client certificates, and the certificate that kube-apiserver makes itself in
//! `--cert-dir` when there is none. No controller runs and no node is there: objects are checked, completed and stored,
//! and nothing comes of them.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::wait::{self, Output};
use crate::{Launch, need, scratch};

/// The administrator's.
const TOKEN: &str = "of-a-server-that-lives-for-a-test";

/// Why there is none.
pub(crate) fn missing() -> Option<String> {
    if let Some(kubeconfig) = env::var_os("TRACER_TEST_KUBECONFIG").map(PathBuf::from) {
        return (!kubeconfig.is_file())
            .then(|| format!("TRACER_TEST_KUBECONFIG: {} is no file", kubeconfig.display()));
    }
    let Some(assets) = assets() else {
        return Some(
            "no API server: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver (setup-envtest gets \
             one), and TRACER_TEST_KUBECONFIG no cluster"
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

/// A cluster, or what there is of one. What was started for it ends when it is dropped.
pub struct Cluster {
    kubeconfig: PathBuf,
    // In this order: the API server ends before what it stores in.
    _apiserver: Option<Process>,
    _etcd: Option<Process>,
    _dir: Option<scratch::Dir>,
}

impl Cluster {
    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// With what was printed, if it does not.
    #[track_caller]
    pub fn start() -> Self {
        if let Some(kubeconfig) = env::var_os("TRACER_TEST_KUBECONFIG") {
            let kubeconfig = PathBuf::from(kubeconfig);
            return Self { kubeconfig, _apiserver: None, _etcd: None, _dir: None };
        }
        let assets = assets().expect("it was looked for");
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
                // Pods' accounts are made by a controller, which is not there.
                ("disable-admission-plugins", "ServiceAccount".into()),
                ("service-account-issuer", url.clone()),
                // A private key has the public one in it.
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

    /// What `kubectl tracer` makes of this, with its agents in that namespace.
    pub fn tracer(&self, namespace: &str, arguments: &[&str]) -> Output {
        let place = format!("--tracer-namespace={namespace}");
        Launch::kubectl(&self.kubeconfig, &[arguments, &[&place]].concat()).output()
    }

    /// What kubectl makes of this.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        query(&self.kubeconfig, arguments)
    }
}

/// The name of a namespace of one's own.
pub fn namespace() -> String {
    scratch::unique("tracer").to_lowercase()
}

fn query(kubeconfig: &Path, arguments: &[&str]) -> Output {
    wait::output(Command::new("kubectl").arg("--kubeconfig").arg(kubeconfig).args(arguments), wait::LIMIT)
}

/// A port that nobody has for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
    listener.local_addr().expect("an address").port()
}

/// A server, its output in a file.
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
        // Ours and not reaped, unless it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
