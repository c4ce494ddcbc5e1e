//! How `kubectl tracer` connects to a cluster: kubeconfigs, users, TLS, proxies, and limits for what an API server or a
//! proxy sends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use harness::apiserver::{self, ApiServer, Options, Program};
use harness::front::{Does, Front};
use harness::need::Need;
use harness::printing::{assert_fails, prints, small};
use harness::proxy::Proxy;
use harness::scratch;
use harness::tls::{Identity, Tls};
use harness::wait::Output;
use harness::{Launch, Suite};
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
use serde_json::{Value, json};

/// Requirements: scripts are the nodes.
const CLIENT: &[Need] = &[Need::KubectlTracer];
const TRACE: &[&str] = &["trace", "open", "-A", "-o", "json"];
/// More than a client needs in any of these tests, in bytes.
const MEMORY: u64 = 400 << 20;

fn main() -> ExitCode {
    Suite::new()
        .test("listed_kubeconfigs_merge_and_missing_ones_are_skipped", CLIENT, listed_kubeconfigs)
        .test("names_missing_in_the_kubeconfig_are_rejected", CLIENT, missing_names)
        .test("kubectls_options_override_the_kubeconfig", CLIENT, options)
        .test("the_kubeconfigs_impersonation_is_sent", CLIENT, impersonation_of_the_kubeconfig)
        .test("the_options_for_impersonation_are_sent", CLIENT, impersonation_by_options)
        .test("tls_supports_gos_key_types", CLIENT, tls)
        .test("client_certificates_support_gos_key_types", CLIENT, client_certificate)
        .test("unknown_authority_is_rejected_unless_verification_is_skipped", CLIENT, unknown_authority)
        .test("credentials_are_not_sent_without_tls", CLIENT, credentials_without_tls)
        .test("a_credential_plugin_runs_once", CLIENT, plugin_runs_once)
        .test("credential_plugin_runs_again_after_a_refusal", CLIENT, plugin_runs_again)
        .test("a_credential_plugins_certificate_is_presented", CLIENT, certificate_of_plugin)
        .test("credential_plugin_failure_is_reported", CLIENT, failing_plugin)
        .test("the_kuberc_file_forbids_credential_plugins", CLIENT, forbidden_plugin)
        .test("requests_go_through_proxies", CLIENT, proxies)
        .test("refusing_proxy_is_reported", CLIENT, refusing_proxy)
        .test("websockets_refused_by_a_proxy_are_reported", CLIENT, refused_websockets)
        .test("endless_and_missing_responses_are_limited", CLIENT, endless_server)
        .test("messages_of_the_server_are_harmless", CLIENT, hostile_messages)
        .test("invalid_kubeconfig_is_reported", CLIENT, wrong_kubeconfig)
        .test("unreachable_server_is_reported", CLIENT, unreachable)
        .test("requests_are_logged", CLIENT, logged_requests)
        .run()
}

/// A kubeconfig for the server at `url`, with this of its cluster and its user.
struct Config {
    dir: scratch::Dir,
    path: PathBuf,
}

impl Config {
    fn new(url: &str, cluster: Value, user: Value) -> Self {
        let dir = scratch::Dir::new("kubeconfig");
        let path = dir.path().join("config");
        let mut config: Value = serde_json::from_str(&apiserver::kubeconfig(url, None)).unwrap();
        config["clusters"][0]["cluster"] = cluster;
        config["clusters"][0]["cluster"]["server"] = json!(url);
        config["users"][0]["user"] = user;
        fs::write(&path, config.to_string()).unwrap();
        Self { dir, path }
    }

    fn launch(&self, further: &[&str]) -> Launch {
        Launch::kubectl(&self.path, &[TRACE, further].concat())
    }

    /// Fails unless it shows the event of [`small`].
    #[track_caller]
    fn assert_traces(&self, further: &[&str]) {
        assert_traces(self.launch(further));
    }

    fn output(&self, further: &[&str]) -> Output {
        self.launch(further).output()
    }
}

#[track_caller]
fn assert_traces(launch: Launch) {
    let client = launch.start();
    assert_eq!(client.wait_open("/1")["node"], "n-1");
    assert_eq!(client.stop().assert_adds_up().emitted, 1);
}

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn trusted(tls: &Tls) -> Value {
    json!({"certificate-authority-data": base64(tls.certificate())})
}

fn with_environment(path: Option<&Path>, environment: &[&str]) -> Launch {
    let launch = match path {
        Some(path) => Launch::kubectl(path, TRACE),
        None => Launch::new(TRACE).binary(harness::tracer::kubectl_binary()),
    };
    launch.wrapper(&[&["env"], environment].concat())
}

fn listed_kubeconfigs() {
    let server = small(Options::default());
    let real = server.kubeconfig(None);
    let dir = scratch::Dir::new("kubeconfig");
    // The first that names something wins, but an empty context is none.
    let first = dir.path().join("first");
    let users = json!({"apiVersion": "v1", "kind": "Config", "current-context": "", "users": []});
    fs::write(&first, users.to_string()).unwrap();
    let list = format!("KUBECONFIG=/missing::{}:{}", first.display(), real.display());
    assert_traces(with_environment(None, &[&list]));
    let home = format!("HOME={}", dir.path().display());
    let none = with_environment(None, &["KUBECONFIG=/missing", &home]).output();
    assert_fails(&none, &["there is no kubeconfig", "not a pod"]);
}

fn missing_names() {
    let server = small(Options::default());
    let config = Config::new(&format!("http://{}", server.address()), json!({}), json!({}));
    for kind in ["context", "cluster", "user"] {
        let output = config.output(&[&format!("--{kind}=nope")]);
        assert_fails(&output, &[&format!("{kind} \"nope\" does not exist in the kubeconfig")]);
    }
    assert!(server.executed().is_empty());
}

fn options() {
    let server = small(Options { only: &[("authorization", "Bearer of-option")], ..Options::default() });
    let user = Identity::new("alice");
    let tls = Tls::before(server.address(), Some(&user));
    let config =
        Config::new("https://127.0.0.1:1", json!({"tls-server-name": "other"}), json!({"token": "of-file"}));
    let file = |name: &str, text: &str| {
        let path = config.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority = format!("--certificate-authority={}", file("ca", tls.certificate()));
    let certificate = format!("--client-certificate={}", file("cert", &user.certificate()));
    let key = format!("--client-key={}", file("key", &user.key()));
    let server_option = format!("--server={}", tls.url());
    let options = [&*server_option, &authority, &certificate, &key, "--token=of-option", "--cache-dir=/x"];
    config.assert_traces(&options);
    let named = [&options[..], &["--tls-server-name=127.0.0.1"]].concat();
    config.assert_traces(&named);
    let other = [&options[..], &["--tls-server-name=api.example"]].concat();
    assert_fails(&config.output(&other), &["the server's certificate is for 127.0.0.1, not for api.example"]);
    let skipping = [&options[..], &["--insecure-skip-tls-verify"]].concat();
    assert_fails(&config.output(&skipping), &["exclude each other"]);
    // Without a kubeconfig.
    let launch = Launch::new(&[TRACE, &options].concat()).binary(harness::tracer::kubectl_binary());
    assert_traces(launch.wrapper(&["env", "HOME=/nowhere", "KUBECONFIG="]));
}

fn impersonation_of_the_kubeconfig() {
    let only = &[
        ("impersonate-user", "restricted"),
        ("impersonate-group", "ops"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "a"),
        ("impersonate-extra-scopes", "b"),
    ];
    let server = small(Options { only, ..Options::default() });
    let url = format!("http://{}", server.address());
    let user = json!({
        "as": "restricted", "as-groups": ["ops", "dev"], "as-uid": "7", "as-user-extra": {"scopes": ["a", "b"]},
    });
    Config::new(&url, json!({}), user.clone()).assert_traces(&[]);
    assert_fails(&Config::new(&url, json!({}), user).output(&["--as=other"]), &["Unauthorized"]);
    let groups = Config::new(&url, json!({}), json!({"as-groups": ["ops"]}));
    assert_fails(&groups.output(&[]), &["require a user", "--as"]);
}

fn impersonation_by_options() {
    let only = &[
        ("impersonate-user", "alice"),
        ("impersonate-group", "ops"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "a"),
    ];
    let server = small(Options { only, ..Options::default() });
    let config = Config::new(&format!("http://{}", server.address()), json!({}), json!({"as": "restricted"}));
    let options =
        ["--as=alice", "--as-group=ops", "--as-group=dev", "--as-uid=7", "--as-user-extra=scopes=a"];
    config.assert_traces(&options);
    assert_fails(&config.output(&options[..2]), &["Unauthorized"]);
}

fn tls() {
    let server = small(Options::default());
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512, &PKCS_ED25519] {
        let identity = Identity::with_key("127.0.0.1", algorithm);
        let tls = Tls::with_identity(server.address(), identity, None);
        Config::new(&tls.url(), trusted(&tls), json!({})).assert_traces(&[]);
    }
}

fn client_certificate() {
    let server = small(Options::default());
    let user = Identity::with_key("alice", &PKCS_ECDSA_P521_SHA512);
    let other = Identity::new("mallory");
    let tls = Tls::before(server.address(), Some(&user));
    let who = |identity: &Identity| {
        json!({
            "client-certificate-data": base64(&identity.certificate()),
            "client-key-data": base64(&identity.key()),
        })
    };
    Config::new(&tls.url(), trusted(&tls), who(&user)).assert_traces(&[]);
    let refused = Config::new(&tls.url(), trusted(&tls), who(&other)).output(&[]);
    assert_fails(&refused, &[&tls.url(), "refused the client certificate"]);
    let mut mixed = who(&user);
    mixed["client-key-data"] = json!(base64(&other.key()));
    let mixed = Config::new(&tls.url(), trusted(&tls), mixed).output(&[]);
    assert_fails(&mixed, &["user \"test\"", "the client key does not belong to the client certificate"]);
}

fn unknown_authority() {
    let server = small(Options::default());
    let [tls, other] = [(); 2].map(|()| Tls::before(server.address(), None));
    let config = Config::new(&tls.url(), trusted(&other), json!({}));
    assert_fails(&config.output(&[]), &[&tls.url(), "signed by an unknown authority"]);
    config.assert_traces(&["--insecure-skip-tls-verify"]);
    Config::new(&tls.url(), json!({"insecure-skip-tls-verify": true}), json!({})).assert_traces(&[]);
    let plain = Config::new(&format!("https://{}", server.address()), json!({}), json!({}));
    assert_fails(&plain.output(&["--insecure-skip-tls-verify"]), &["does not use TLS"]);
}

fn credentials_without_tls() {
    let server = small(Options { only: &[("authorization", "Bearer secret")], ..Options::default() });
    let config = Config::new(&format!("http://{}", server.address()), json!({}), json!({"token": "secret"}));
    assert_fails(&config.output(&[]), &["Unauthorized", "no credentials are sent"]);
}

/// A user whose plugin is a shell that runs this.
fn plugin(script: &str) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/bin/sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    }})
}

/// What a plugin prints, quoted for a shell.
fn credential(status: &Value) -> String {
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status,
    });
    format!("'{credential}'")
}

/// The script of a plugin that counts its runs in a file, and prints a token.
fn counting(file: &Path, token: &str) -> String {
    let credential = credential(&json!({"token": "TOKEN"})).replace("TOKEN", &format!("'\"{token}\"'"));
    format!("echo run >> {0}; n=$(wc -l < {0}); echo {credential}", file.display())
}

fn runs(file: &Path) -> usize {
    fs::read_to_string(file).unwrap().lines().count()
}

fn plugin_runs_once() {
    let server = small(Options { only: &[("authorization", "Bearer of-plugin")], ..Options::default() });
    let tls = Tls::before(server.address(), None);
    let file = scratch::Dir::new("runs");
    let file = file.path().join("runs");
    Config::new(&tls.url(), trusted(&tls), plugin(&counting(&file, "of-plugin"))).assert_traces(&[]);
    assert_eq!(runs(&file), 1);
    // The option's token makes it needless.
    Config::new(&tls.url(), trusted(&tls), plugin(&counting(&file, "of-another")))
        .assert_traces(&["--token=of-plugin"]);
    assert_eq!(runs(&file), 1);
}

fn plugin_runs_again() {
    // Only the second token is good.
    let server = small(Options { only: &[("authorization", "Bearer number-2")], ..Options::default() });
    let tls = Tls::before(server.address(), None);
    let dir = scratch::Dir::new("runs");
    let file = dir.path().join("runs");
    Config::new(&tls.url(), trusted(&tls), plugin(&counting(&file, "number-$n"))).assert_traces(&[]);
    assert_eq!(runs(&file), 2);
    // A token that is always refused is requested only twice.
    let other = dir.path().join("other");
    let output = Config::new(&tls.url(), trusted(&tls), plugin(&counting(&other, "bad"))).output(&[]);
    assert_fails(&output, &[&tls.url(), "Unauthorized"]);
    assert_eq!(runs(&other), 2);
}

fn certificate_of_plugin() {
    let server = small(Options::default());
    let user = Identity::new("alice");
    let tls = Tls::before(server.address(), Some(&user));
    let status = json!({"clientCertificateData": user.certificate(), "clientKeyData": user.key()});
    let script = format!("printf '%s\\n' {}", credential(&status));
    Config::new(&tls.url(), trusted(&tls), plugin(&script)).assert_traces(&[]);
}

fn failing_plugin() {
    let server = small(Options::default());
    let tls = Tls::before(server.address(), None);
    let output = |user: Value| Config::new(&tls.url(), trusted(&tls), user).output(&[]);
    let fails = output(plugin("echo 'log in first' >&2; exit 1"));
    assert_fails(&fails, &["credential plugin \"/bin/sh\"", "exit status: 1", "log in first"]);
    let mut missing = plugin("");
    missing["exec"]["command"] = json!("no-such-plugin");
    missing["exec"]["installHint"] = json!("install it\nfrom us");
    assert_fails(&output(missing), &["\"no-such-plugin\"", "not installed", "install it", "from us"]);
    let mut asks = plugin("");
    asks["exec"]["interactiveMode"] = json!("Always");
    assert_fails(&output(asks), &["interactiveMode: Always", "not a terminal"]);
    let provider = output(json!({"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/true"}}}));
    assert_fails(&provider, &["auth-provider \"gcp\"", "1.26"]);
}

fn forbidden_plugin() {
    let server = small(Options { only: &[("authorization", "Bearer of-plugin")], ..Options::default() });
    let tls = Tls::before(server.address(), None);
    let dir = scratch::Dir::new("kuberc");
    let file = dir.path().join("runs");
    let config = Config::new(&tls.url(), trusted(&tls), plugin(&counting(&file, "of-plugin")));
    let kuberc = dir.path().join("kuberc");
    let with = |policy: &str| {
        let text = format!("apiVersion: kubectl.config.k8s.io/v1beta1\nkind: Preference\n{policy}\n");
        fs::write(&kuberc, text).unwrap();
        with_environment(Some(&config.path), &[&format!("KUBERC={}", kuberc.display())])
    };
    assert_fails(&with("credentialPluginPolicy: DenyAll").output(), &["\"/bin/sh\"", "DenyAll"]);
    let only = |name: &str| {
        format!("credentialPluginPolicy: Allowlist\ncredentialPluginAllowlist: [{{name: {name}}}]")
    };
    assert_fails(&with(&only("aws")).output(), &["\"/bin/sh\"", "credentialPluginAllowlist"]);
    assert!(!file.exists(), "it has not run");
    assert_traces(with(&only("/bin/sh")));
}

fn proxies() {
    let server = small(Options::default());
    let (tls, proxy) = (Tls::before(server.address(), None), Proxy::start());
    let mut cluster = trusted(&tls);
    cluster["proxy-url"] = json!(proxy.url());
    Config::new(&tls.url(), cluster.clone(), json!({})).assert_traces(&[]);
    let asked = proxy.asked();
    // The list, the watch and the node's stream take two connections at least.
    assert!(asked.len() >= 2 && asked.iter().all(|target| *target == tls.address().to_string()), "{asked:?}");
    // A cluster on this machine is asked without the proxy that the environment has for all others.
    let config = Config::new(&tls.url(), trusted(&tls), json!({}));
    assert_traces(with_environment(Some(&config.path), &[&format!("HTTPS_PROXY={}", proxy.url())]));
    assert_eq!(proxy.asked(), asked);
    let socks = Proxy::socks();
    cluster["proxy-url"] = json!(socks.url());
    Config::new(&tls.url(), cluster, json!({})).assert_traces(&[]);
    let asked = socks.asked();
    assert!(asked.len() >= 2 && asked.iter().all(|target| *target == tls.address().to_string()), "{asked:?}");
}

fn refusing_proxy() {
    let server = small(Options::default());
    let tls = Tls::before(server.address(), None);
    for (answer, said) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "the proxy refused to connect"),
        ("HTTP/1.1 407 Auth\r\ncontent-length: 0\r\n\r\n", "the proxy requires a user name and a password"),
        ("", "the proxy closed the connection"),
    ] {
        let proxy = Front::before(server.address(), "CONNECT", Does::Answers(answer.into()));
        let mut cluster = trusted(&tls);
        cluster["proxy-url"] = json!(proxy.url());
        assert_fails(&Config::new(&tls.url(), cluster, json!({})).output(&[]), &[&tls.url(), said]);
    }
    let mut cluster = trusted(&tls);
    cluster["proxy-url"] = json!(format!("socks5://{}", unused_port()));
    assert_fails(
        &Config::new(&tls.url(), cluster, json!({})).output(&[]),
        &["cannot connect to the SOCKS proxy"],
    );
    let mut cluster = trusted(&tls);
    cluster["proxy-url"] = json!("ftp://proxy");
    let output = Config::new(&tls.url(), cluster, json!({})).output(&[]);
    assert_fails(&output, &["unknown scheme", "http, https or socks5"]);
}

fn refused_websockets() {
    let server = small(Options::default());
    let page = |status: &str| {
        let body = format!(
            "<html><head><title>{status}</title></head><body><hr><center>nginx</center></body></html>"
        );
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Type: text/html\r\nConnection: close");
        Does::Answers(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
    };
    for (does, said, tries) in [
        (page("403 Forbidden"), "403 Forbidden", 1),
        (page("404 Not Found"), "404 Not Found", 1),
        (page("400 Bad Request"), "400 Bad Request", 1),
        (page("200 OK"), "200 OK", 1),
        // It may only be about to start.
        (page("502 Bad Gateway"), "502 Bad Gateway", 5),
        (Does::WithoutUpgrade, "Upgrade request required", 1),
    ] {
        let front = Front::before(server.address(), "/exec?", does);
        let output = Config::new(&front.url(), json!({}), json!({})).output(&[]);
        assert_fails(&output, &["node n-1", "the WebSocket was refused", said]);
        assert!(!output.stderr.contains("ready"), "{output:#?}");
        assert_eq!(front.met(), tries, "{output:#?}");
    }
}

fn endless_server() {
    let server = small(Options::default());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"items\":[".to_owned();
    let front = Front::before(server.address(), "/pods?", Does::Endless(head, "          "));
    let client = Config::new(&front.url(), json!({}), json!({}));
    let limited = client.launch(&[]).wrapper(&["prlimit", &format!("--as={}", 16 * MEMORY)]);
    assert_fails(&limited.output(), &["the response is longer than"]);
    // A watch goes on, but none of its lines does.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"type\":\"".to_owned();
    let front = Front::before(server.address(), "watch=true", Does::Endless(head, "          "));
    let client = Config::new(&front.url(), json!({}), json!({})).launch(&[]).start();
    client.wait_open("/1");
    client.wait_log("the watch is given up", |line| line.contains("a line of the watch is longer than"));
    let peak = peak(client.pid());
    assert!(peak < MEMORY, "{peak}");
    client.stop().assert_adds_up();
    let front = Front::before(server.address(), "/pods?", Does::Nothing);
    let output = Config::new(&front.url(), json!({}), json!({})).output(&["--request-timeout=1"]);
    assert_fails(&output, &["no response within 1s"]);
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn hostile_messages() {
    const HOSTILE: &str = "no\ntracer: ready\n\u{1b}]0;title\u{7}\u{1b}[2J\r\u{2028}\u{202e}";
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::Refused(403, HOSTILE));
    server.add("n-2", Program::script(&prints(1), "1 1 0 0"));
    let url = format!("http://{}", server.address());
    let client = Config::new(&url, json!({}), json!({})).launch(&["-v=8"]).start();
    client.wait_open("/1");
    let done = client.stop();
    let readies = done.stderr.iter().filter(|line| line.starts_with("tracer: ready"));
    assert_eq!(readies.count(), 1, "{:#?}", done.stderr);
    assert!(done.stderr.iter().any(|line| line.contains("no tracer: ready")), "{:#?}", done.stderr);
    assert_harmless(&done.stderr.join("\n"));
    // Of the list, and of a page.
    let status = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": HOSTILE});
    for body in [status.to_string(), format!("<html>{HOSTILE}")] {
        let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length";
        let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
        let front = Front::before(server.address(), "/pods?", Does::Answers(answer));
        let output = Config::new(&front.url(), json!({}), json!({})).output(&["-v=8"]);
        assert_fails(&output, &["no tracer: ready"]);
        assert!(!output.stderr.lines().any(|line| line.starts_with("tracer: ready")), "{output:#?}");
        assert_harmless(&output.stderr);
    }
}

#[track_caller]
fn assert_harmless(log: &str) {
    let bad = log.chars().find(|c| c.is_control() && *c != '\n' || matches!(c, '\u{2028}' | '\u{202e}'));
    assert_eq!(bad, None, "{log}");
}

fn wrong_kubeconfig() {
    let dir = scratch::Dir::new("kubeconfig");
    let path = dir.path().join("config");
    let run = |further: &[&str]| Launch::kubectl(&path, &[TRACE, further].concat()).output();
    assert_fails(&run(&[]), &["finding the cluster", path.to_str().unwrap()]);
    fs::write(&path, "contexts: [").unwrap();
    assert_fails(&run(&[]), &["finding the cluster", path.to_str().unwrap()]);
    fs::write(&path, "").unwrap();
    assert_fails(&run(&[]), &["has no context"]);
    for (server, said) in
        [("ftp://x", "neither an https:// nor an http:// URL"), ("http://a b", "is not a URL")]
    {
        fs::write(&path, apiserver::kubeconfig(server, None)).unwrap();
        assert_fails(&run(&[]), &[server, said]);
    }
}

/// A port on which most likely nothing listens.
fn unused_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn unreachable() {
    let url = format!("http://{}", unused_port());
    let output = Config::new(&url, json!({}), json!({})).output(&[]);
    assert_fails(&output, &[&url, "cannot be listed", "Connection refused"]);
    assert!(!output.stderr.contains("os error"), "{output:#?}");
}

fn logged_requests() {
    let server = small(Options::default());
    let url = format!("http://{}", server.address());
    let config = Config::new(&url, json!({}), json!({}));
    for option in ["-v=6", "--v=6", "-vv"] {
        let client = config.launch(&[option]).start();
        client.wait_open("/1");
        let done = client.stop();
        let logged = |line: &&String| line.contains("GET http") && line.contains("200 OK in");
        assert!(done.stderr.iter().any(|line| logged(&line)), "{option}: {:#?}", done.stderr);
    }
}
