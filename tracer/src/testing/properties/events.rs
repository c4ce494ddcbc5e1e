//! Records from the ring of events, decoded, attributed and shown. Input: what is shown and how (a byte), and a script:
//! names, records, and what becomes known of containers between them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use tracer_common::{comm_bytes, container::ContainerKey, kinds::Header};
use zerocopy::FromBytes as _;

use super::{
    Target, script,
    shown::{self, TERMINAL},
};
use crate::{
    kinds::{Event, Field, Hex, Kind, Kinds, Value, companion},
    model::{Choice, Container, Unknown},
    output::{ContainerTexts, EventRenderer, Format, Look, Lost, Row},
    pipeline::Attributor,
    registry::{Attribution, Lookup},
    testing::{
        Load,
        records::{NODE, router},
    },
};

pub(super) const TARGET: Target = Target { name: "events", check, seeds };

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

/// The traced kinds, by the lowest bits of the first byte.
const TRACED: [&[&str]; 4] = [&["open"], &["exec"], &["exit"], &["open", "exec", "exit"]];
/// The bit of the first byte that says that there is a terminal. The bits above it are its width.
const ON_TERMINAL: u8 = 32;

/// After 1970 by more than any clock that counts from a boot, and before timestamps have more digits.
const START: i128 = 1_795_212_901_000_000_000;

fn seeds() -> Vec<Vec<u8>> {
    // Usual names, and names that are narrower where ligatures are known.
    let usual = "coredns-6d4b75cb6d-kcxd4".to_owned();
    let looks = [(0, usual.clone()), (ON_TERMINAL, usual), (ON_TERMINAL, "\u{644}\u{627}".repeat(40))];
    let mut seeds = Vec::new();
    for (traced, kinds) in (0_u8..).zip(TRACED) {
        for (output, _) in (0_u8..).zip(OUTPUTS) {
            let choices = looks.iter().map(|(terminal, name)| (traced | output << 2 | terminal, name));
            seeds.extend(choices.map(|(choice, name)| [vec![choice], seed(kinds, name)].concat()));
        }
    }
    seeds
}

/// A script with something of everything.
fn seed(kinds: &[&str], name: &str) -> Vec<u8> {
    let load = Load { containers: 8, processes: 2 };
    let mut records: Vec<Vec<u8>> = kinds.iter().flat_map(|kind| load.records(kind, 8)).collect();
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
    let kinds = Kinds::by_name(TRACED[usize::from(choice & 3)]).unwrap();
    let output = OUTPUTS[usize::from(choice >> 2 & 7) % OUTPUTS.len()];
    let terminal = (choice & ON_TERMINAL != 0).then_some(TERMINAL + usize::from(choice >> 6) * 20);
    check_rows(&kinds, output, terminal, script);
    check_routing(&kinds, output, script);
}

/// The name that a script gives containers.
fn name(script: &[u8]) -> String {
    let named = script::pieces(script).find(|(what, _)| *what == NAME);
    String::from_utf8_lossy(named.map_or(&[], |(_, name)| name)).into_owned()
}

/// The kind of a record, and the bytes that it says it has.
fn announced<'k>(kinds: &'k Kinds, record: &[u8]) -> Option<(&'k Kind, usize)> {
    let (header, _) = Header::read_from_prefix(record).ok()?;
    let kind = kinds.iter().find(|kind| kind.schema.number == header.kind)?;
    Some((kind, parts(kind, record)?.last().map_or(kind.schema.record_size, |(_, end)| *end)))
}

/// Where the parts of a record begin and end.
fn parts(kind: &Kind, record: &[u8]) -> Option<Vec<(usize, usize)>> {
    let fixed = record.get(..kind.schema.record_size)?;
    let mut end = fixed.len();
    let part = |at: &usize| {
        let start = end;
        end += usize::from(u16::from_le_bytes([fixed[*at], fixed[at + 1]]));
        (start, end)
    };
    Some(kind.schema.parts.iter().map(part).collect())
}

/// Every record is decoded from its own bytes alone, and every format shows the same of it.
fn check_rows(kinds: &Arc<Kinds>, output: &str, terminal: Option<usize>, script: &[u8]) {
    let container = shown::called(&name(script));
    let format = Format::parse(output).unwrap();
    let json = Format::parse("json").unwrap();
    let mut renderer = EventRenderer::new(&format, kinds, NODE, Look::plain(terminal)).unwrap();
    let mut text = Vec::new();
    renderer.begin(&mut text);
    let (mut texts, mut texts_of_host) = (ContainerTexts::default(), ContainerTexts::default());
    let mut lines = Vec::new();
    for (_, record) in script::pieces(script).filter(|(what, _)| *what >= RECORD) {
        let announced = announced(kinds, record);
        let event = Event::decode(kinds, record);
        assert_eq!(event.is_some(), announced.is_some_and(|(_, len)| len <= record.len()));
        let (Some(event), Some((kind, len))) = (event, announced) else { continue };
        assert!(Event::decode(kinds, &record[..len - 1]).is_none(), "{len} bytes are one too many");
        let cut = Event::decode(kinds, &record[..len]).unwrap();

        let timestamp = START + i128::from(event.header.timestamp);
        let of_host = event.header.container == ContainerKey::HOST;
        let container = (!of_host).then_some(&container);
        let row = |event| Row { timestamp, node: NODE, event, container };
        let texts = if of_host { &mut texts_of_host } else { &mut texts };
        renderer.row(&row(&event), texts, &mut text).unwrap();
        // What follows a record in the ring is not shown with it, and what is cached is what is written anew.
        let line = |event| {
            let mut line = Vec::new();
            let mut fresh = EventRenderer::new(&json, kinds, NODE, Look::plain(None)).unwrap();
            fresh.row(&row(event), &mut ContainerTexts::default(), &mut line).unwrap();
            shown::check_json(&line).remove(0)
        };
        let whole = line(&event);
        assert_eq!(whole, line(&cut));
        check_line(&whole, kind, &record[..len]);
        lines.push(whole);
    }
    // On a terminal the heading waits for the first row.
    let header = usize::from(terminal.is_none() || !lines.is_empty());
    match output {
        "json" => assert_eq!(shown::check_json(&text), lines),
        "jsonpretty" => assert_eq!(shown::check_pretty(&text), lines),
        "yaml" => assert_eq!(shown::check_yaml(&text), lines),
        _ => shown::check_table(&text, lines.len() + header, terminal),
    }
}

fn lossy(bytes: &[u8]) -> Json {
    String::from_utf8_lossy(bytes).into()
}

/// The digits of what is not UTF-8.
fn hex(bytes: &[u8]) -> Json {
    if std::str::from_utf8(bytes).is_ok() { Json::Null } else { Hex(bytes).to_string().into() }
}

/// A line says what the record's bytes do.
fn check_line(line: &Json, kind: &Kind, record: &[u8]) {
    let (header, _) = Header::read_from_prefix(record).unwrap();
    assert_eq!(line["event"], kind.name());
    assert_eq!(line["process"]["pid"], header.pid);
    assert_eq!(line["process"]["containerPid"], header.container_pid);
    assert_eq!(line["process"]["comm"], lossy(comm_bytes(&header.comm)));
    assert_eq!(line["process"].get("commHex").unwrap_or(&Json::Null), &hex(comm_bytes(&header.comm)));
    assert_eq!(line["container"].is_null(), header.container == ContainerKey::HOST);
    let shown = &line[kind.name()];
    assert!(shown.is_object());
    for field in &kind.schema.fields {
        check_field(shown, field, kind, record);
    }
}

fn check_field(shown: &Json, field: &Field, kind: &Kind, record: &[u8]) {
    let at = kind.schema.flags_at;
    let flags = u16::from_le_bytes([record[at], record[at + 1]]);
    let (value, digits) = (shown.get(&field.name), shown.get(format!("{}Hex", field.name)));
    if field.when != 0 && flags & field.when == 0 {
        assert_eq!(value, None, "{}", field.name);
        return;
    }
    let part = |part: u8| {
        let (start, end) = parts(kind, record).unwrap()[usize::from(part)];
        &record[start..end]
    };
    match &field.value {
        Value::Text { part: index } => {
            assert_eq!(value, Some(&lossy(part(*index))));
            assert_eq!(digits.unwrap_or(&Json::Null), &hex(part(*index)));
        }
        Value::Texts { part: index } => {
            let block = part(*index);
            let words: Vec<&[u8]> = match block.strip_suffix(b"\0").unwrap_or(block) {
                [] if block.is_empty() => vec![],
                words => words.split(|byte| *byte == 0).collect(),
            };
            assert_eq!(value, Some(&words.iter().map(|word| lossy(word)).collect()));
            assert_eq!(digits.is_none(), std::str::from_utf8(block).is_ok());
        }
        Value::Bytes { part: index } => assert_eq!(value, Some(&Hex(part(*index)).to_string().into())),
        Value::Signed { at } => {
            let number = i32::from_le_bytes(*record[*at..].first_chunk().unwrap());
            assert_eq!(value, Some(&number.into()));
        }
        Value::Nanoseconds { at } => {
            let number = u64::from_le_bytes(*record[*at..].first_chunk().unwrap());
            assert_eq!(value, Some(&number.into()));
        }
        Value::Flag { mask, only_true } => match (flags & mask != 0, only_true) {
            (false, true) => assert_eq!(value, None),
            (is_set, _) => assert_eq!(value, Some(&is_set.into())),
        },
        Value::Bits { .. } => assert!(value.is_some_and(Json::is_array)),
        Value::Object { .. } => assert!(value.is_some_and(Json::is_object)),
        Value::Errno { .. } => {
            let name = shown.get(companion(field));
            assert!(value.is_some_and(Json::is_number) && name.is_none_or(Json::is_string));
            assert!(name.is_none() || value != Some(&0.into()));
        }
        Value::FileDescriptor { .. } | Value::Unsigned { .. } => {
            assert!(value.is_some_and(Json::is_number));
        }
        Value::Choice { .. } | Value::FirstFlag { .. } | Value::Signal { .. } => {
            assert!(value.is_none_or(Json::is_string));
        }
    }
}

/// What is known of containers, by their slot: each is known, or not, in a way of its own.
struct Slots {
    name: String,
    revealed: Arc<Mutex<HashSet<u32>>>,
}

impl Slots {
    fn attribution(&self, key: ContainerKey, choice: Choice) -> Attribution {
        let container = match key.slot() {
            0 => Container::unknown(Unknown::Untrusted),
            _ => shown::called(&self.name),
        };
        Attribution { key, container: Arc::new(container), choice, host: false }
    }

    fn is_revealed(&self, slot: u32) -> bool {
        self.revealed.lock().unwrap_or_else(PoisonError::into_inner).contains(&slot)
    }
}

impl Attributor for Slots {
    fn update(&mut self) -> u64 {
        self.revealed.lock().unwrap().len() as u64
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        let choice = match key.slot() {
            0..=2 => Choice::Selected,
            3 => Choice::Rejected,
            4 => Choice::Undecidable,
            slot @ 5..8 if self.is_revealed(slot) => Choice::Selected,
            5..8 => return Lookup::Pending,
            _ => return Lookup::Unknown,
        };
        Lookup::Known(Arc::new(self.attribution(key, choice)))
    }

    fn report_missing(&self, _key: ContainerKey) {}

    fn unresolved(&self) -> Attribution {
        self.attribution(ContainerKey::HOST, Choice::Selected)
    }
}

/// Every record is counted once, and as many rows are written as events are emitted.
fn check_routing(kinds: &Arc<Kinds>, output: &str, script: &[u8]) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let (mut rows, mut records) = (0, 0);
    let much_later = || Instant::now() + Duration::from_secs(3600);
    let revealed = Arc::default();
    let slots = Slots { name: name(script), revealed: Arc::clone(&revealed) };
    let writes = Arc::clone(&written);
    let (mut router, tally, _stopped) = router(slots, kinds, output, move |text| {
        writes.lock().unwrap().extend_from_slice(text);
        (text.len(), Ok(()))
    });
    let is_table = matches!(Format::parse(output), Ok(Format::Table(_)));
    for (what, piece) in script::pieces(script) {
        let slot = piece.first().copied().unwrap_or(0);
        match what {
            NAME => {}
            REVEAL => {
                revealed.lock().unwrap().insert(slot.into());
                router.update();
            }
            SETTLE => router.settle(if slot == 0 { Instant::now() } else { much_later() }),
            LOST => {
                let hook = kinds.names().into();
                router.sink.lost(&Lost { count: slot.into(), reason: "buffer-full".into(), hook });
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
    router.settle(much_later());
    assert!(!router.is_keeping_back());
    router.sink.flush();
    assert_eq!(tally.emitted() + tally.filtered() + tally.lost(), records);
    rows += tally.emitted();
    let text = written.lock().unwrap();
    match output {
        "json" => assert_eq!(shown::check_json(&text).len() as u64, rows),
        "jsonpretty" => assert_eq!(shown::check_pretty(&text).len() as u64, rows),
        "yaml" => assert_eq!(shown::check_yaml(&text).len() as u64, rows),
        _ => shown::check_table(&text, usize::try_from(rows).unwrap() + 1, None),
    }
}
