//! Scripts that print the output of a node, for tests of the client.

use serde_json::json;

use crate::apiserver::{ApiServer, Options, Program};
use crate::wait::Output;

/// An event of a node with the name `n`, as a line.
pub fn event(path: &str) -> String {
    json!({
        "timestamp": "2026-11-20T22:15:01.123456789Z",
        "event": "open",
        "node": "n",
        "k8s": {"namespace": "ns", "pod": "web", "podUid": "u", "container": "app", "labels": {}},
        "container": {"id": "c", "runtime": "containerd", "type": "container", "image": "i", "source": "bundle"},
        "process": {"pid": 7, "tid": 7, "ppid": 1, "containerPid": 1, "uid": 0, "gid": 0, "comm": "sh"},
        "open": {
            "path": path, "flags": ["O_RDONLY"], "mode": 0, "dirfd": -100, "call": "openat", "fd": 3, "errno": 0, "truncated": false
        },
    })
    .to_string()
}

/// A script that prints events with the numbers from 1 to `count`.
pub fn prints(count: u32) -> String {
    let (before, after) = halves();
    format!("seq {count} | sed \"s|.*|{before}&{after}|\"")
}

/// The parts of an event's line before and after its number, quoted for `sed` in double quotes.
pub fn halves() -> (String, String) {
    let line = event("/NUMBER").replace('\\', "\\\\").replace('"', "\\\"");
    let (before, after) = line.split_once("NUMBER").expect("the number");
    (before.to_owned(), after.to_owned())
}

/// A server with one node that prints one event.
pub fn small(options: Options) -> ApiServer {
    let server = ApiServer::start(options);
    server.add("n-1", Program::script(&prints(1), "1 1 0 0"));
    server
}

/// Fails unless a client exited with 1, reported these texts, and printed no event.
#[track_caller]
pub fn assert_fails(output: &Output, said: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    for text in said {
        assert!(output.stderr.contains(text), "{text}: {output:#?}");
    }
    assert!(output.stdout.is_empty());
}
