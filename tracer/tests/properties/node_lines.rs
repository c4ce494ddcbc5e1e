//! What a node prints for `kubectl tracer`, read back and shown. Input: what is printed and how it is shown (a byte), and
//! lines.

use serde_json::Value;
use tracer::{
    containers::Container,
    read::{Listed, Reader, Told},
    render::{ContainerEvent, ContainerRenderer, ContainerRow, EventRenderer, Format, Kept, ListOf, Row},
    trace::{Event, TRACERS, Tracer},
};

use super::{
    Target,
    records::{Load, NODE},
    shown::{self, TERMINAL},
};

pub const TARGET: Target = Target { name: "node_lines", check, seeds };

const OUTPUTS: [&str; 5] = ["json", "columns", "wide", "yaml", "jsonpretty"];

/// The bit of the first byte that says that containers are listed; otherwise it is the bit below that tells the events.
const LISTS: u8 = 2;
/// The bit that says that there is a terminal.
const ON_TERMINAL: u8 = 64;

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (output, _) in (0_u8..).zip(OUTPUTS) {
        let outputs = [output << 2, output << 2 | ON_TERMINAL];
        for (kind, tracer) in (0_u8..).zip(TRACERS) {
            seeds.extend(outputs.map(|output| [&[output | kind][..], &events(tracer)].concat()));
        }
        seeds.extend(outputs.map(|output| [&[output | LISTS][..], &containers()].concat()));
    }
    seeds
}

/// Events of a pod, of a container that is none's, and of the host; and losses.
fn events(tracer: &'static dyn Tracer) -> Vec<u8> {
    let mut renderer = EventRenderer::new(&Format::parse("json").unwrap(), tracer, NODE, None, true).unwrap();
    let mut text = Vec::new();
    let named = shown::called("coredns-6d4b75cb6d-kcxd4");
    let alone = Container { pod: None, ..shown::called("\u{1b}[2J\u{202e}\n") };
    let whose = [Some(&named), Some(&alone), None];
    for (record, container) in Load::MIXED.records(tracer, 6).iter().zip(whose.into_iter().cycle()) {
        let event = Event::decode(tracer, record).unwrap();
        let row = Row {
            timestamp: 1_795_212_901_123_456_789,
            node: NODE,
            kind: tracer.name(),
            event: &event,
            container,
        };
        renderer.row(&row, &mut Kept::default(), &mut text).unwrap();
    }
    let lost = format!(
        r#"{{"timestamp":"2026-11-20T22:15:01.000000000Z","event":"lost","node":"x","lost":{{"count":7,"reason":"buffer-full","hook":"{}"}}}}"#,
        tracer.name()
    );
    [&text, lost.as_bytes()].concat()
}

/// Containers, as they are listed and as they come and go.
fn containers() -> Vec<u8> {
    let named = shown::called("web-0");
    let row = ContainerRow {
        node: NODE,
        event: None,
        changed: vec![],
        container: &named,
        pid: 7,
        started: Some(0),
        now: 1,
    };
    let gone = ContainerRow {
        node: NODE,
        event: Some(ContainerEvent::Deleted),
        changed: vec![],
        container: &named,
        pid: 0,
        started: None,
        now: 1,
    };
    let changed = ContainerRow {
        node: NODE,
        event: Some(ContainerEvent::Modified),
        changed: vec!["labels"],
        container: &named,
        pid: 7,
        started: Some(0),
        now: 1,
    };
    let listed = show(&[row], "json", None, false);
    [listed, show(&[changed, gone], "json", None, true)].concat()
}

fn check(input: &[u8]) {
    let Some((choice, lines)) = input.split_first() else { return };
    let output = OUTPUTS[usize::from(choice >> 2 & 15) % OUTPUTS.len()];
    let terminal = (choice & ON_TERMINAL != 0).then_some(TERMINAL);
    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    if choice & LISTS == 0 {
        check_events(TRACERS[usize::from(choice & 1)], output, terminal, &lines);
    } else {
        check_containers(output, terminal, &lines);
    }
}

/// What is read is a record that is decoded whole; shown, it can do no harm, and read again it is the same.
fn check_events(tracer: &'static dyn Tracer, output: &str, terminal: Option<usize>, lines: &[&[u8]]) {
    let format = Format::parse(output).unwrap();
    let mut renderer = EventRenderer::new(&format, tracer, NODE, terminal, true).unwrap();
    let mut json = EventRenderer::new(&Format::parse("json").unwrap(), tracer, NODE, None, true).unwrap();
    let (mut text, mut rows) = (Vec::new(), usize::from(matches!(format, Format::Table(_))));
    renderer.begin(&mut text);
    let mut reader = Reader::new(tracer);
    // What was read before is not looked at again.
    let mut records = b"before".to_vec();
    for line in lines {
        let start = records.len();
        let told = reader.read(line, &mut records);
        // Nothing that has to do with another line.
        let mut alone = Vec::new();
        let told_alone = Reader::new(tracer).read(line, &mut alone);
        assert_eq!(records[start..], alone);
        let (timestamp, about) = match told {
            Ok(Told::Event { timestamp, about }) => (timestamp, about),
            Ok(Told::Lost { timestamp, lost }) => {
                assert!(alone.is_empty());
                rows += usize::from(renderer.lost(timestamp, NODE, &lost, &mut text).unwrap());
                continue;
            }
            Err(problem) => {
                assert!(alone.is_empty());
                assert_eq!(told_alone.unwrap_err(), problem);
                continue;
            }
        };
        let container = about.container.as_ref();
        let Ok(Told::Event { about: about_alone, .. }) = told_alone else {
            panic!("an event only with others")
        };
        assert_eq!(about_alone.container, about.container);
        let event = Event::decode(tracer, &alone).expect("a whole record");
        let row = Row { timestamp, node: NODE, kind: tracer.name(), event: &event, container };
        // What rows have of a container goes with one renderer.
        renderer.row(&row, &mut about.kept.lock().unwrap(), &mut text).unwrap();
        rows += 1;

        let mut written = Vec::new();
        json.row(&row, &mut Kept::default(), &mut written).unwrap();
        let mut again = Vec::new();
        let told = Reader::new(tracer).read(written.trim_ascii_end(), &mut again);
        let Ok(Told::Event { timestamp, about }) = told else {
            panic!("{told:?}: {:?}", String::from_utf8_lossy(&written))
        };
        assert_eq!(again, alone);
        let mut written_again = Vec::new();
        let row = Row { timestamp, container: about.container.as_ref(), ..row };
        json.row(&row, &mut Kept::default(), &mut written_again).unwrap();
        assert_eq!(String::from_utf8(written_again), String::from_utf8(written));
    }
    check_text(&text, output, terminal, rows);
}

fn check_containers(output: &str, terminal: Option<usize>, lines: &[&[u8]]) {
    let listed: Vec<Listed> = lines.iter().filter_map(|line| Listed::read(line).ok()).collect();
    for watch in [false, true] {
        let rows: Vec<ContainerRow<'_>> = listed.iter().map(row).collect();
        let text = show(&rows, output, terminal, watch);
        let header = usize::from(!matches!(output, "json" | "jsonpretty" | "yaml"));
        check_text(&text, output, terminal, rows.len() + header);
    }
    for container in &listed {
        let text = show(&[row(container)], "json", None, true);
        let again = Listed::read(text.trim_ascii_end()).unwrap();
        assert_eq!(String::from_utf8(show(&[row(&again)], "json", None, true)), String::from_utf8(text));
    }
}

fn row(listed: &Listed) -> ContainerRow<'_> {
    let Listed { event, changed, container, pid, started } = listed;
    let changed = changed.iter().map(String::as_str).collect();
    ContainerRow { node: NODE, event: *event, changed, container, pid: *pid, started: *started, now: 0 }
}

fn show(rows: &[ContainerRow<'_>], output: &str, terminal: Option<usize>, watch: bool) -> Vec<u8> {
    let mut renderer = ContainerRenderer::new(ListOf::Cluster, output, NODE, true, terminal, watch).unwrap();
    let mut text = Vec::new();
    renderer.begin(rows, &mut text).unwrap();
    text
}

/// As many rows, or documents, as there should be.
fn check_text(text: &[u8], output: &str, terminal: Option<usize>, rows: usize) {
    let documents: Vec<Value> = match output {
        "json" => shown::check_json(text),
        "jsonpretty" => shown::check_pretty(text),
        "yaml" => shown::check_yaml(text),
        _ => return shown::check_table(text, rows, terminal),
    };
    assert_eq!(documents.len(), rows);
}
