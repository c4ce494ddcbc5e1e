//! What another `tracer` has written, out of its lines of JSON. Events are made into the very records that they were
//! decoded from there, so that they are decoded and shown here by the same code; so are containers.
//!
//! Whoever wrote a line may lie: what it says counts as names that a container chose.

mod about;
mod container;
mod exec;
mod open;

use std::{borrow::Cow, fmt, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use tracer_common::{
    COMM_LEN, Comm,
    container::ContainerKey,
    event::{Header, Kind},
};

pub(crate) use about::About;
use about::Known;
pub(crate) use container::Listed;

use crate::{kinds::Tracer, output::Lost};

/// Why a line is not what such a tracer writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Malformed {
    fn from(problem: &str) -> Self {
        Self(problem.to_owned())
    }
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// What a line tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// An event; its record has been appended.
    Event {
        /// Nanoseconds since 1970.
        timestamp: i128,
        /// Whose it is.
        about: Arc<About>,
    },
    /// Events that were lost.
    Lost {
        /// Nanoseconds since 1970.
        timestamp: i128,
        /// How many, and why.
        lost: Lost,
    },
}

/// Reads the lines of one node.
#[derive(Debug)]
pub(crate) struct Reader {
    tracer: &'static dyn Tracer,
    known: Known,
}

impl Reader {
    /// Reads events of this kind.
    #[must_use]
    pub(crate) fn new(tracer: &'static dyn Tracer) -> Self {
        Self { tracer, known: Known::default() }
    }

    /// What `line` tells. The record of an event is appended to `records`.
    pub(crate) fn read(&mut self, line: &[u8], records: &mut Vec<u8>) -> Result<Told, Malformed> {
        match serde_json::from_slice::<EventLine<'_>>(line) {
            Ok(event) => self.event(&event, records),
            Err(error) => match serde_json::from_slice::<LostLine<'_>>(line) {
                Ok(LostLine { timestamp, event: "lost", lost }) => Ok(Told::Lost {
                    timestamp: nanoseconds(timestamp)?,
                    lost: Lost {
                        count: lost.count,
                        reason: lost.reason.into_owned().into(),
                        hook: lost.hook.into_owned().into(),
                    },
                }),
                // The more likely of the two.
                _ => Err(error.into()),
            },
        }
    }

    fn event(&mut self, line: &EventLine<'_>, records: &mut Vec<u8>) -> Result<Told, Malformed> {
        if line.event != self.tracer.name() {
            return Err("it tells of something else than was asked for".into());
        }
        let timestamp = nanoseconds(line.timestamp)?;
        let about = self.known.about(line.k8s, line.container)?;
        let kind = self.tracer.kind();
        let header = header(kind, &line.process)?;
        let start = records.len();
        let appended = match kind {
            Kind::Open => line.open.as_ref().ok_or("it has no field `open`")?.append(header, records),
            Kind::Exec => line.exec.as_ref().ok_or("it has no field `exec`")?.append(header, records),
        };
        appended.inspect_err(|_| records.truncate(start))?;
        Ok(Told::Event { timestamp, about })
    }
}

/// An event as JSON has it (`render/json.rs`).
#[derive(Deserialize)]
struct EventLine<'a> {
    timestamp: &'a str,
    event: &'a str,
    #[serde(borrow)]
    k8s: &'a RawValue,
    #[serde(borrow)]
    container: &'a RawValue,
    #[serde(borrow)]
    process: Process<'a>,
    #[serde(borrow)]
    open: Option<open::Open<'a>>,
    #[serde(borrow)]
    exec: Option<exec::Exec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    pid: u32,
    tid: u32,
    ppid: u32,
    container_pid: u32,
    uid: u32,
    gid: u32,
    #[serde(borrow)]
    comm: Cow<'a, str>,
    comm_hex: Option<&'a str>,
}

#[derive(Deserialize)]
struct LostLine<'a> {
    timestamp: &'a str,
    event: &'a str,
    #[serde(borrow)]
    lost: LostText<'a>,
}

#[derive(Deserialize)]
struct LostText<'a> {
    count: u64,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    hook: Cow<'a, str>,
}

/// Nanoseconds since 1970.
fn nanoseconds(timestamp: &str) -> Result<i128, Malformed> {
    let parsed = timestamp.parse::<jiff::Timestamp>();
    Ok(parsed.map_err(|_| "its timestamp is none")?.as_nanosecond())
}

fn header(kind: Kind, process: &Process<'_>) -> Result<Header, Malformed> {
    let bytes = bytes_of(&process.comm, process.comm_hex)?;
    let mut comm = Comm::default();
    // A comm ends with its first NUL.
    if bytes.len() > COMM_LEN || bytes.contains(&0) {
        return Err("its comm is none".into());
    }
    comm[..bytes.len()].copy_from_slice(&bytes);
    Ok(Header {
        // That of the node's kernel stays there.
        timestamp: 0,
        container: ContainerKey::HOST,
        kind: kind as u32,
        pid: process.pid,
        tid: process.tid,
        ppid: process.ppid,
        container_pid: process.container_pid,
        uid: process.uid,
        gid: process.gid,
        reserved: 0,
        comm,
    })
}

/// The bytes that a text stands for, which are told apart from it where they are not UTF-8.
fn bytes_of<'a>(text: &'a str, hex: Option<&str>) -> Result<Cow<'a, [u8]>, Malformed> {
    match hex {
        None => Ok(Cow::Borrowed(text.as_bytes())),
        Some(hex) => Ok(Cow::Owned(of_hex(hex).ok_or("its hexadecimal digits are none")?)),
    }
}

fn of_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// What a call returned, as the kernel has it.
fn ret(value: i32, errno: u32) -> Result<i32, Malformed> {
    match errno {
        0 => Ok(value),
        _ => 0_i32.checked_sub_unsigned(errno).ok_or_else(|| "its errno is none".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::TRACERS;

    const PROCESS: &str =
        r#""process":{"pid":1,"tid":1,"ppid":0,"containerPid":1,"uid":0,"gid":0,"comm":"c"}"#;
    const OPEN: &str = r#""open":{"path":"/p","flags":["O_RDONLY"],"mode":0,"dirfd":-100,"fd":3,"errno":0,"truncated":false}"#;

    fn read(line: &str) -> Result<Told, Malformed> {
        Reader::new(TRACERS[0]).read(line.as_bytes(), &mut Vec::new())
    }

    fn line(k8s: &str, container: &str) -> String {
        format!(
            r#"{{"timestamp":"2026-11-20T22:15:01.123456789Z","event":"open","node":"x","k8s":{k8s},"container":{container},{PROCESS},{OPEN},"more":[1]}}"#
        )
    }

    #[test]
    fn fields_of_newer_tracers_do_not_matter() {
        let Told::Event { timestamp, about } = read(&line("null", "null")).unwrap() else { panic!() };
        assert_eq!(timestamp, 1_795_212_901_123_456_789);
        assert!(about.container.is_none());
    }

    #[test]
    fn what_is_missing_is_named() {
        for field in ["timestamp", "event", "k8s", "container", "process"] {
            let broken = line("null", "null").replace(&format!("\"{field}\":"), "\"other\":");
            let error = read(&broken).unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{field}`")), "{error}");
        }
        let error = read(&line("null", "null").replace("\"open\":", "\"other\":")).unwrap_err();
        assert!(error.to_string().contains("`open`"), "{error}");
        let error = read(&line("null", "null").replace(r#""comm":"c""#, r#""x":1"#)).unwrap_err();
        assert!(error.to_string().contains("`comm`"), "{error}");
    }

    #[test]
    fn what_no_tracer_writes_is_refused() {
        let good = line("null", "null");
        let pod = r#"{"namespace":"a","pod":"b","podUid":null,"container":null,"labels":{}}"#;
        for broken in [
            String::new(),
            "[]".into(),
            "\u{1b}[2J".into(),
            good.replace("2026-11-20T22:15:01.123456789Z", "yesterday"),
            good.replace(r#""event":"open""#, r#""event":"exec""#),
            good.replace(r#""event":"open""#, r#""event":"lost""#),
            good.replace(r#""comm":"c""#, r#""comm":"longer than sixteen bytes""#),
            good.replace(r#""comm":"c""#, r#""comm":"a\u0000b""#),
            good.replace(r#""comm":"c""#, r#""comm":"c","commHex":"f""#),
            good.replace(r#""comm":"c""#, r#""comm":"c","commHex":"\u0066f""#),
            good.replace("O_RDONLY", "O_SOMETHING"),
            good.replace(r#""errno":0"#, r#""errno":4294967295"#),
            good.replace("\"/p\"", &format!("\"{}\"", "x".repeat(70_000))),
            format!("{good}{good}"),
            // A pod without a container.
            line(pod, "null"),
        ] {
            assert!(read(&broken).is_err(), "{broken}");
        }
        assert!(Reader::new(TRACERS[0]).read(b"{\"timestamp\":\"\xff\"}", &mut Vec::new()).is_err());
    }

    #[test]
    fn losses_are_told_whatever_their_reason() {
        let line = r#"{"timestamp":"2026-11-20T22:15:01.000000000Z","event":"lost","node":"x","lost":{"count":7,"reason":"new","hook":"open"}}"#;
        let Told::Lost { lost, .. } = read(line).unwrap() else { panic!() };
        assert_eq!(lost, Lost { count: 7, reason: "new".into(), hook: "open".into() });
    }
}
