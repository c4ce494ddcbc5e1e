//! What a node sends to `kubectl tracer`. Input: what follows (a byte), and the bytes of a stream, of frames that are compressed
//! here, or lines that list containers.

use std::sync::Arc;

use tracer_common::container::ContainerKey;

use super::{Target, shown};
use crate::{
    frames::{self, Compressor, Frame, FrameError, FrameReader, FrameWriter, Listed, Type, frame},
    kinds::{Event, Kinds},
    model::{Container, ExitStatus},
    output::{ContainerEvent, ContainerRenderer, ContainerRow, ContainerTexts, ListOf, Look, Lost},
    testing::{Load, records::NODE},
};

pub(super) const TARGET: Target = Target { name: "frames", check, seeds };

/// What follows the first byte.
const STREAM: u8 = 0;
const FRAMES: u8 = 1;
const LINES: u8 = 2;

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kinds in [&["open"][..], &["exec"], &["exit"], &["open", "exec", "exit"]] {
        let frames = events(kinds);
        seeds.push([&[STREAM][..], &compressed(&frames)].concat());
        seeds.push([&[FRAMES][..], &frames].concat());
    }
    seeds.push([&[LINES][..], &containers()].concat());
    seeds
}

fn compressed(frames: &[u8]) -> Vec<u8> {
    Compressor::new().unwrap().write(frames, <[u8]>::to_vec).unwrap()
}

/// A run: events of a pod, of a container without one, and of the host; losses, and the summary.
fn events(names: &[&str]) -> Vec<u8> {
    let kinds = Kinds::by_name(names).unwrap();
    let (mut writer, mut out) = (FrameWriter::default(), Vec::new());
    frames::hello(&kinds, NODE, &mut out);
    out.extend(frame(Type::Ready, &[]));
    let named = shown::called("coredns-6d4b75cb6d-kcxd4");
    let alone = Container { pod: None, ..shown::called("\u{1b}[2J\u{202e}\n") };
    let containers = [Some(&named), Some(&alone), None];
    for kind in names {
        let records = Load::MIXED.records(kind, 6);
        for (record, (slot, container)) in records.iter().zip((1..).zip(containers).cycle()) {
            let key = ContainerKey::new(slot, 1);
            let mut texts = ContainerTexts::default();
            writer.event(1_795_212_901_123_456_789, key, record, container, &mut texts, &mut out).unwrap();
        }
    }
    writer.forget(ContainerKey::new(1, 1), &mut out);
    let lost = Lost { count: 7, reason: "buffer-full".into(), hook: kinds.names().into() };
    frames::lost(1_795_212_901_000_000_000, &lost, &mut out).unwrap();
    out.extend(frame(Type::Alive, &[]));
    out.extend(frame(Type::Summary, br#"{"seen":9,"emitted":6,"filtered":1,"lost":2}"#));
    out
}

/// Containers, as they are listed and as they come and go.
fn containers() -> Vec<u8> {
    let named = shown::called("web-0");
    let row = |event, changed, pid| ContainerRow {
        node: NODE,
        event,
        changed,
        container: &named,
        pid,
        started: (pid != 0).then_some(0),
        now: 1,
        exit: (pid == 0).then_some(ExitStatus::Signal(9)),
    };
    let rows = [
        row(None, vec![], 7),
        row(Some(ContainerEvent::Modified), vec!["labels"], 7),
        row(Some(ContainerEvent::Deleted), vec![], 0),
    ];
    show(&rows, "json", true)
}

fn check(input: &[u8]) {
    match input.split_first() {
        Some((&STREAM, stream)) => check_stream(stream),
        Some((&FRAMES, frames)) => check_stream(&compressed(frames)),
        Some((_, lines)) => check_containers(lines),
        None => {}
    }
}

/// What a stream says, frame by frame, and how it ends.
fn read(pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
    let (mut reader, mut frames) = (FrameReader::new().unwrap(), Vec::new());
    let mut kinds: Option<Arc<Kinds>> = None;
    for piece in pieces {
        let result = reader.feed(piece, |frame| {
            match &frame {
                Frame::Hello(hello) => kinds = Kinds::new(hello.kinds.clone()).ok(),
                Frame::Event(record) => {
                    let event = kinds.as_deref().and_then(|kinds| Event::decode(kinds, record));
                    let json = event.map(|event| {
                        let mut json = Vec::new();
                        event.kind.write_json(&event, &mut [], &mut json).unwrap();
                        let _ = event.kind.write_details(&event, &mut Vec::new());
                        serde_json::from_slice::<serde_json::Value>(&json).unwrap()
                    });
                    frames.push(format!("{json:?}"));
                }
                _ => {}
            }
            frames.push(format!("{frame:?}"));
            Ok::<(), FrameError>(())
        });
        if let Err(error) = result {
            return (frames, Some(error.to_string()));
        }
    }
    (frames, None)
}

/// How a stream is cut into pieces does not matter.
fn check_stream(stream: &[u8]) {
    let whole = read(&[stream]);
    let middle = stream.len() / 2;
    assert_eq!(read(&[&stream[..middle], &stream[middle..]]), whole);
}

fn check_containers(lines: &[u8]) {
    let listed: Vec<Listed> =
        lines.split(|byte| *byte == b'\n').filter_map(|line| Listed::read(line).ok()).collect();
    let rows: Vec<ContainerRow<'_>> = listed.iter().map(row).collect();
    for watch in [false, true] {
        shown::check_table(&show(&rows, "columns", watch), rows.len() + 1, None);
        assert_eq!(shown::check_json(&show(&rows, "json", watch)).len(), rows.len());
    }
    for container in &listed {
        let text = show(&[row(container)], "json", true);
        assert_eq!(&Listed::read(text.trim_ascii_end()).unwrap(), container);
    }
}

fn row(listed: &Listed) -> ContainerRow<'_> {
    let Listed { event, changed, container, pid, started, exit } = listed;
    let changed = changed.iter().map(String::as_str).collect();
    ContainerRow {
        node: NODE,
        event: *event,
        changed,
        container,
        pid: *pid,
        started: *started,
        now: 0,
        exit: *exit,
    }
}

fn show(rows: &[ContainerRow<'_>], output: &str, watch: bool) -> Vec<u8> {
    let mut renderer =
        ContainerRenderer::new(ListOf::Cluster, output, NODE, Look::plain(None), watch).unwrap();
    let mut text = Vec::new();
    renderer.begin(rows, &mut text).unwrap();
    text
}
