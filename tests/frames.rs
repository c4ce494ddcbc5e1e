//! Writes frames as a node sends them: what the scripts of `tests/harness/printing.rs` call. Each argument is a frame, or
//! many: `hello=NODE`, `ready`, `alive`, `summary=SEEN,EMITTED,FILTERED,LOST`, `opens=COUNT` of the paths `/1`, `/2` and so on,
//! `random=COUNT` of long paths, `open=PATH`, `listed=COUNT,JSON`, `raw=TYPE,TEXT`.

#![allow(clippy::unwrap_used, reason = "what it is called with is in the tests")]

use std::io::{Write as _, stdout};

use tracer::testing::Stream;

fn main() {
    let mut stream = Stream::default();
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let (first, rest) = value.split_once(',').unwrap_or((value, ""));
        match name {
            "hello" => stream.hello(value),
            "ready" => stream.ready(),
            "alive" => stream.alive(),
            "summary" => {
                let [seen, emitted, filtered, lost] = value.split(',').collect::<Vec<_>>()[..] else {
                    panic!()
                };
                stream.summary(&format!(
                    r#"{{"seen":{seen},"emitted":{emitted},"filtered":{filtered},"lost":{lost}}}"#
                ));
            }
            "opens" => {
                (1..=value.parse::<u32>().unwrap())
                    .for_each(|n| stream.open(format!("/{n}").as_bytes()).unwrap());
            }
            "random" => {
                let mut state = 1_u64;
                for _ in 0..value.parse::<u32>().unwrap() {
                    let digits = (0..100).map(|_| {
                        // xorshift64: what does not compress well.
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        format!("{state:016x}")
                    });
                    stream.open(format!("/{}", digits.collect::<String>()).as_bytes()).unwrap();
                }
            }
            "open" => stream.open(value.as_bytes()).unwrap(),
            "listed" => (0..first.parse().unwrap()).for_each(|_| stream.listed(rest)),
            "raw" => stream.raw(first.parse().unwrap(), rest.as_bytes()),
            other => panic!("no frame {other}"),
        }
    }
    // The client may have closed the connection.
    let _ = stdout().write_all(&stream.finish().unwrap());
}
