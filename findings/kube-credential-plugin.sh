#!/bin/bash
# kube's client runs a credential plugin three times before it sends anything, and once more for each client.
#
# Package: kube 5.0.0 (Rust crate), features "client", "rustls-tls" and "ring".
# Expected: Kubernetes documentation, "Authenticating", client-go credential plugins: a plugin may prompt the user (`interactiveMode`), and
#   "The returned credentials are then cached for future requests". kubectl 1.36.4 runs the plugin once for a command.
# Seen: one `Client::try_from(config)` executes the plugin three times, each time waiting for it: for the layer that adds the token, for
#   the client certificate, and for the time at which that expires. A plugin that asks for a password asks three times.
# Output:
#   configuration read: 0 runs
#   first client: 3 runs
#   second client: 6 runs
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/crate/src"
cat >"$work/crate/src/main.rs" <<'RUST'
use kube::{Client, Config, config::{KubeConfigOptions, Kubeconfig}};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let runs = std::env::args().nth(1).unwrap();
    let count = || std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
    let credential = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}"#;
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
         users:\n- name: a\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: Never\n      \
         command: sh\n      args: ['-c', 'echo run >> {runs}; echo ''{credential}''']\n"
    );
    let config = Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text).unwrap(), &KubeConfigOptions::default()).await.unwrap();
    println!("configuration read: {} runs", count());
    Client::try_from(config.clone()).unwrap();
    println!("first client: {} runs", count());
    Client::try_from(config).unwrap();
    println!("second client: {} runs", count());
}
RUST
crate_binary 'kube = { version = "=5.0.0", default-features = false, features = ["client", "rustls-tls", "ring"] }' \
  'k8s-openapi = { version = "0.29", features = ["earliest"] }' 'tokio = { version = "1", features = ["macros", "rt", "net", "time"] }'
"$binary" "$work/runs" | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
configuration read: 0 runs
first client: 3 runs
second client: 6 runs
RECORDED
