//! Records from the ring of events, decoded, attributed and shown. Input: what is shown and how (a byte), and a script:
//! what is named so, records, and what becomes known of containers between them.

use std::{
    cell::RefCell,
    collections::HashSet,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tracer::{
    containers::{Attribution, Choice, Container, Lookup, Unknown},
    render::{EventRenderer, Events, Format, Hex, Kept, Lost, Renderer, Row, Table},
    trace::{Event, Knowledge, TRACERS, Tracer},
    wire,
};
use tracer_common::{
    comm_bytes,
    container::ContainerKey,
    event::{Exec, Header, Kind, Open, OpenCall},
};

use super::{
    Target,
    records::{Load, NODE, router},
    script,
    shown::{self, TERMINAL},
};

pub const TARGET: Target = Target { name: "events", check, seeds };

/// Pieces of a script; what is none of the others is a record.
const NAME: u8 = 0;
const REVEAL: u8 = 1;
const SETTLE: u8 = 2;
const LOST: u8 = 3;
const FORGET: u8 = 4;
const RECORD: u8 = 5;

const OUTPUTS: [&str; 6] = [
    "json",
    "columns",
    "wide",
    "yaml",
    "jsonpretty",
    "custom-columns=COMM,POD,PID,TIMESTAMP,NODE,TYPE,CONTAINERPID",
];

/// The bit of the first byte that says that there is one. The bits behind it tell how wide it is.
const ON_TERMINAL: u8 = 16;

/// After 1970 by more than any clock that counts from a boot, and before timestamps have more digits.
const START: i128 = 1_795_212_901_000_000_000;

fn seeds() -> Vec<Vec<u8>> {
    // Names as usual, and such as take fewer places where ligatures are known.
    let usual = "coredns-6d4b75cb6d-kcxd4".to_owned();
    let looks = [(0, usual.clone()), (ON_TERMINAL, usual), (ON_TERMINAL, "\u{644}\u{627}".repeat(40))];
    let mut seeds = Vec::new();
    for (kind, tracer) in (0_u8..).zip(TRACERS) {
        for (output, _) in (0_u8..).zip(OUTPUTS) {
            let choices = looks.iter().map(|(terminal, name)| (kind | output << 1 | terminal, name));
            seeds.extend(choices.map(|(choice, name)| [vec![choice], seed(tracer, name)].concat()));
        }
    }
    seeds
}

/// A script with something of everything.
fn seed(tracer: &dyn Tracer, name: &str) -> Vec<u8> {
    let mut records = Load { containers: 8, processes: 2 }.records(tracer, 8);
    // The last bytes are those of a path or an argument.
    for (record, text) in records.iter_mut().zip(["\u{1b}[2J\u{202e}", "\n\u{e0001}\\", "日本\u{301}"]) {
        let end = record.len();
        record[end - text.len()..].copy_from_slice(text.as_bytes());
    }
    let mut pieces = vec![(NAME, name.as_bytes())];
    pieces.extend(records.iter().map(|record| (RECORD, &record[..])));
    pieces.extend([(REVEAL, &[5_u8][..]), (SETTLE, b""), (LOST, b"\x07"), (FORGET, b"\x01")]);
    pieces.extend(records.iter().take(4).map(|record| (RECORD, &record[..])));
    script::of(&pieces)
}

fn check(input: &[u8]) {
    let Some((choice, script)) = input.split_first() else { return };
    let tracer = TRACERS[usize::from(choice & 1)];
    let output = OUTPUTS[usize::from(choice >> 1 & 7) % OUTPUTS.len()];
    let terminal = (choice & ON_TERMINAL != 0).then_some(TERMINAL + usize::from(choice >> 5) * 20);
    check_rows(tracer, output, terminal, script);
    check_way(tracer, output, script);
}

/// What a script calls containers.
fn name(script: &[u8]) -> String {
    let named = script::pieces(script).find(|(what, _)| *what == NAME);
    String::from_utf8_lossy(named.map_or(&[], |(_, name)| name)).into_owned()
}

/// The bytes that a record of a kind says it has, as its structures tell.
fn announced(tracer: &dyn Tracer, record: &[u8]) -> Option<usize> {
    Some(match tracer.kind() {
        Kind::Open => {
            let open: Open = wire::read(record)?;
            open.fixed_len() + usize::from(open.path_len)
        }
        Kind::Exec => {
            let exec: Exec = wire::read(record)?;
            size_of::<Exec>() + usize::from(exec.path_len) + usize::from(exec.args_len)
        }
    })
}

/// Every record is decoded from its own bytes alone and shown as all ways of showing it agree.
fn check_rows(tracer: &'static dyn Tracer, output: &str, terminal: Option<usize>, script: &[u8]) {
    let container = shown::called(&name(script));
    let format = Format::parse(output).unwrap();
    let json = Format::parse("json").unwrap();
    let mut fast = EventRenderer::new(&format, tracer, NODE, terminal, true).unwrap();
    let mut plain =
        Renderer::<Events>::new(&format, |layout| Table::new(layout, tracer, NODE, terminal, true)).unwrap();
    let mut lines =
        Renderer::<Events>::new(&json, |layout| Table::new(layout, tracer, NODE, None, true)).unwrap();
    let (mut by_fast, mut by_plain) = (Vec::new(), Vec::new());
    fast.begin(&mut by_fast);
    plain.begin(&mut by_plain);
    let (mut kept, mut kept_of_host) = (Kept::default(), Kept::default());
    let mut said = Vec::new();
    for (_, record) in script::pieces(script).filter(|(what, _)| *what >= RECORD) {
        let len = announced(tracer, record);
        let event = Event::decode(tracer, record);
        let is_of_kind =
            wire::read::<Header>(record).is_some_and(|header| header.kind == tracer.kind() as u32);
        assert_eq!(event.is_some(), is_of_kind && len.is_some_and(|len| len <= record.len()));
        let (Some(event), Some(len)) = (event, len) else { continue };
        assert!(Event::decode(tracer, &record[..len - 1]).is_none(), "{len} bytes are one too many");
        let cut = Event::decode(tracer, &record[..len]).unwrap();

        let timestamp = START + i128::from(event.header.timestamp);
        let of_host = event.header.container == ContainerKey::HOST;
        let container = (!of_host).then_some(&container);
        let row = |event| Row { timestamp, node: NODE, kind: tracer.name(), event, container };
        let kept = if of_host { &mut kept_of_host } else { &mut kept };
        fast.row(&row(&event), kept, &mut by_fast).unwrap();
        plain.row(&row(&event), &mut by_plain).unwrap();
        // What stands in the ring behind a record is not shown with it.
        let (mut whole, mut exact) = (Vec::new(), Vec::new());
        lines.row(&row(&event), &mut whole).unwrap();
        lines.row(&row(&cut), &mut exact).unwrap();
        assert_eq!(String::from_utf8(whole.clone()), String::from_utf8(exact));
        let line = shown::check_json(&whole).remove(0);
        check_line(&line, tracer, &record[..len]);
        said.push(line);
    }
    assert_eq!(String::from_utf8_lossy(&by_fast), String::from_utf8_lossy(&by_plain));
    let header = usize::from(matches!(format, Format::Table(_)));
    match output {
        "json" => assert_eq!(shown::check_json(&by_fast), said),
        "jsonpretty" => assert_eq!(shown::check_pretty(&by_fast), said),
        "yaml" => assert_eq!(shown::check_yaml(&by_fast), said),
        _ => shown::check_table(&by_fast, said.len() + header, terminal),
    }
}

/// A line says what the record's bytes do.
fn check_line(line: &Value, tracer: &dyn Tracer, record: &[u8]) {
    let lossy = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let hex = |bytes: &[u8]| {
        if std::str::from_utf8(bytes).is_ok() {
            return Value::Null;
        }
        let digits = |byte: &u8| {
            [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        };
        Value::from(bytes.iter().flat_map(digits).collect::<String>())
    };
    let header: Header = wire::read(record).unwrap();
    assert_eq!(line["event"], tracer.name());
    assert_eq!(line["process"]["pid"], header.pid);
    assert_eq!(line["process"]["containerPid"], header.container_pid);
    assert_eq!(line["process"]["comm"], lossy(comm_bytes(&header.comm)));
    assert_eq!(line["process"]["commHex"], hex(comm_bytes(&header.comm)));
    assert_eq!(line["container"].is_null(), header.container == ContainerKey::HOST);
    let shown = &line[tracer.name()];
    let path = match tracer.kind() {
        Kind::Open => {
            let open: Open = wire::read(record).unwrap();
            let path = &record[open.fixed_len()..];
            if open.call == OpenCall::OpenByHandleAt as u8 {
                assert_eq!(shown["handle"]["bytes"], Hex(path).to_string());
                &[]
            } else {
                path
            }
        }
        Kind::Exec => {
            let exec: Exec = wire::read(record).unwrap();
            let (path, args) = record[size_of::<Exec>()..].split_at(usize::from(exec.path_len));
            let words: Vec<&[u8]> = match args.strip_suffix(b"\0").unwrap_or(args) {
                [] if args.is_empty() => vec![],
                args => args.split(|byte| *byte == 0).collect(),
            };
            let all: Vec<Value> = words.iter().map(|word| lossy(word)).collect();
            assert_eq!(shown["args"], Value::from(all));
            assert_eq!(shown["argsHex"].is_null(), std::str::from_utf8(args).is_ok());
            path
        }
    };
    assert_eq!((&shown["path"], &shown["pathHex"]), (&lossy(path), &hex(path)));
}

/// What is known of containers, by their slot: each is known, or unknown, in a way of its own.
struct Slots {
    name: String,
    revealed: Rc<RefCell<HashSet<u32>>>,
}

impl Slots {
    fn attribution(&self, key: ContainerKey, choice: Choice) -> Attribution {
        let container = match key.slot() {
            0 => Container::unknown(Unknown::Untrusted),
            _ => shown::called(&self.name),
        };
        Attribution { key, container: Arc::new(container), choice, host: false }
    }
}

impl Knowledge for Slots {
    fn learn(&mut self) -> u64 {
        self.revealed.borrow().len() as u64
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        let choice = match key.slot() {
            0..=2 => Choice::Selected,
            3 => Choice::Rejected,
            4 => Choice::Undecidable,
            slot @ 5..8 if self.revealed.borrow().contains(&slot) => Choice::Selected,
            5..8 => return Lookup::Pending,
            _ => return Lookup::Unknown,
        };
        Lookup::Known(Arc::new(self.attribution(key, choice)))
    }

    fn miss(&self, _key: ContainerKey) {}

    fn unknown(&self) -> Attribution {
        self.attribution(ContainerKey::HOST, Choice::Selected)
    }
}

thread_local! {
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn write(text: &[u8]) -> (usize, io::Result<()>) {
    WRITTEN.with_borrow_mut(|written| written.extend_from_slice(text));
    (text.len(), Ok(()))
}

/// Every record is counted once, and what was shown is as many rows.
fn check_way(tracer: &'static dyn Tracer, output: &str, script: &[u8]) {
    WRITTEN.with_borrow_mut(Vec::clear);
    let (mut rows, mut records) = (0, 0);
    let patient_no_more = || Instant::now() + Duration::from_secs(3600);
    let revealed = Rc::default();
    let slots = Slots { name: name(script), revealed: Rc::clone(&revealed) };
    let (mut router, tally, _stopped) = router(slots, tracer, output, write);
    let is_table = matches!(Format::parse(output), Ok(Format::Table(_)));
    for (what, piece) in script::pieces(script) {
        let slot = piece.first().copied().unwrap_or(0);
        match what {
            NAME => {}
            REVEAL => {
                revealed.borrow_mut().insert(slot.into());
                router.learn();
            }
            SETTLE => router.settle(if slot == 0 { Instant::now() } else { patient_no_more() }),
            LOST => {
                router.sink.lost(&Lost {
                    count: slot.into(),
                    reason: "buffer-full".into(),
                    hook: tracer.name().into(),
                });
                rows += u64::from(!is_table);
            }
            FORGET => {
                let _ = router.forget(&[(ContainerKey::new(slot.into(), 1), 0)], true);
            }
            _ => {
                router.handle(piece);
                records += 1;
            }
        }
    }
    router.settle(patient_no_more());
    assert!(!router.is_waiting());
    router.sink.flush();
    assert_eq!(tally.emitted() + tally.filtered() + tally.lost(), records);
    rows += tally.emitted();
    WRITTEN.with_borrow(|text| match output {
        "json" => assert_eq!(shown::check_json(text).len() as u64, rows),
        "jsonpretty" => assert_eq!(shown::check_pretty(text).len() as u64, rows),
        "yaml" => assert_eq!(shown::check_yaml(text).len() as u64, rows),
        _ => shown::check_table(text, usize::try_from(rows).unwrap() + 1, None),
    });
}
