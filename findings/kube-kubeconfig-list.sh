#!/bin/bash
# Lists of kubeconfig files that kubectl reads: kube refuses one of them whole, and chooses no context in another.
#
# Package: kube 5.0.0 (Rust crate), feature "config".
# Expected: Kubernetes documentation, "Organizing Cluster Access Using kubeconfig Files": of the files in KUBECONFIG, "Ignore empty
#   filenames" and "The first file to set a particular value or map key wins". client-go (tools/clientcmd/loader.go) skips files that do not
#   exist, and takes an empty `current-context` for one that is not set; `kubectl config unset current-context` leaves files like that.
# Seen: a file that does not exist is an error for the whole list. An empty `current-context` in the first file wins over a name in the
#   second, and no context is found.
# Output:
#   one file: context a
#   missing file first: error
#   missing file last: error
#   empty current-context first: error
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/crate/src"
cat >"$work/crate/src/main.rs" <<'RUST'
use kube::{Config, config::KubeConfigOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (what, files) = (std::env::args().nth(1).unwrap(), std::env::args().nth(2).unwrap());
    std::env::set_var("KUBECONFIG", files);
    match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
        Ok(config) => println!("{what}: context {}", config.default_namespace),
        Err(_) => println!("{what}: error"),
    }
}
RUST
crate_binary 'kube = { version = "=5.0.0", default-features = false, features = ["client"] }' \
  'k8s-openapi = { version = "0.29", features = ["earliest"] }' 'tokio = { version = "1", features = ["macros", "rt"] }'
cat >"$work/real" <<'YAML'
apiVersion: v1
kind: Config
current-context: a
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: a, context: {cluster: a, namespace: a}}]
YAML
printf 'apiVersion: v1\nkind: Config\ncurrent-context: ""\n' >"$work/empty"
{
  "$binary" "one file" "$work/real"
  "$binary" "missing file first" "$work/missing:$work/real"
  "$binary" "missing file last" "$work/real:$work/missing"
  "$binary" "empty current-context first" "$work/empty:$work/real"
} | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
one file: context a
missing file first: error
missing file last: error
empty current-context first: error
RECORDED
