//! Scripts that send the output of a node, for tests of the client.

use crate::apiserver::{ApiServer, Options, Program};
use crate::wait::Output;

/// A script that sends events with the numbers from 1 to `count`.
pub fn prints(count: u32) -> String {
    format!("frames opens={count}")
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
