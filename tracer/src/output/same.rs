//! What is written fast is what the plain ways write, serde for JSON and cell by cell for columns, and safe to show.

use proptest::{collection::vec, prelude::*, sample::select};
use tracer_common::{
    Comm,
    container::ContainerKey,
    event::{Exec, Header, Kind, Open},
};

use unicode_width::UnicodeWidthChar;

use crate::{
    bpf::wire,
    kinds::{Event, TRACERS, Tracer},
    model::{Container, ContainerType, Isolation, Nested, Pod, Source, Unknown},
    output::{EventRenderer, Events, Format, Kept, Renderer, Row, Table},
    read::{Reader, Told},
    sanitize::is_safe,
};

const NODE: &str = "n\u{f6}de \"1\"";

/// Text of any kind, mostly such as paths are made of.
fn any_bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[/a-z0-9._-]{0,80}".prop_map(String::into_bytes),
        1 => any::<String>().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..len),
        1 => select(vec!["/\u{9b}2J", "a\u{202e}b", "\"q\" \\", "\n\t\r\u{8}\u{c}\u{7f}", "日本", "\u{e0001}"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn any_comm() -> impl Strategy<Value = Comm> {
    any_bytes(16).prop_map(|bytes| {
        let mut comm = Comm::default();
        bytes.iter().take(comm.len() - 1).zip(&mut comm).for_each(|(from, to)| *to = *from);
        comm
    })
}

/// A number, often one that came before.
fn any_number() -> impl Strategy<Value = u32> {
    prop_oneof![select(vec![0, 1, 1000]), any::<u32>()]
}

/// Of a process that may have had events before, and may have others by the same thread.
fn any_header(kind: Kind) -> impl Strategy<Value = Header> {
    let ids = (any_number(), any_number(), any_number(), any_number(), any_number(), any_number());
    let comm = prop_oneof![Just(*b"coredns\0\0\0\0\0\0\0\0\0"), any_comm()];
    let timestamp = prop_oneof![0..3_000_000_000_u64, any::<u64>()];
    (timestamp, ids, comm).prop_map(move |(timestamp, ids, comm)| Header {
        timestamp,
        container: ContainerKey::HOST,
        kind: kind as u32,
        pid: ids.0,
        tid: ids.1,
        ppid: ids.2,
        container_pid: ids.3,
        uid: ids.4,
        gid: ids.5,
        reserved: 0,
        comm,
    })
}

fn any_open() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![select(vec![0, 0o2_000_000, 0o101]), any::<u64>()];
    let dirfd = prop_oneof![Just(-100), any::<i32>()];
    let ret = prop_oneof![0..20_i32, -200..0_i32, any::<i32>()];
    let call = (flags, ret, dirfd, any_number(), any::<u8>(), 0..10_u8, any::<[u8; 8]>());
    (any_header(Kind::Open), call, any_bytes(300)).prop_map(|(header, call, path)| {
        let (flags, ret, dirfd, mode, marks, call, extra) = call;
        let path_len = u16::try_from(path.len()).unwrap();
        let open = Open { header, flags, ret, dirfd, mode, path_len, marks, call };
        let extra = &extra[..open.fixed_len() - size_of::<Open>()];
        [wire::bytes(&open), extra, &path].concat()
    })
}

fn any_exec() -> impl Strategy<Value = Vec<u8>> {
    let args = vec(any_bytes(50), 0..5);
    let end = any::<bool>();
    let call = (-200..2_i32, any::<u8>(), any::<i32>());
    (any_header(Kind::Exec), call, any_bytes(300), args, end).prop_map(|(header, call, path, args, end)| {
        let (ret, marks, dirfd) = call;
        let mut block = args.join(&0);
        if end {
            block.push(0);
        }
        let path_len = u16::try_from(path.len()).unwrap();
        let args_len = u16::try_from(block.len()).unwrap();
        let exec = Exec { header, ret, path_len, args_len, dirfd, marks, reserved: [0; 3] };
        [wire::bytes(&exec), &path, &block].concat()
    })
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let labels = prop::option::of(prop::collection::btree_map(any::<String>(), any::<String>(), 0..3));
    let names = (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>());
    (names, labels).prop_map(|((namespace, name, pod_uid, container), labels)| Pod {
        namespace,
        name,
        pod_uid,
        container,
        labels,
    })
}

fn any_container() -> impl Strategy<Value = Container> {
    let texts = (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>());
    let why = prop::option::of(select(vec![Unknown::Late, Unknown::Untrusted]));
    let isolation = prop::option::of(Just(Isolation::Kata));
    (texts, why, isolation, prop::option::of(any_pod())).prop_map(
        |((id, runtime, image, nested), why, isolation, pod)| {
            let nested = nested.map(|id| Nested { id, runtime: "runc".into() });
            Container {
                id,
                runtime,
                image,
                kind: ContainerType::Sandbox,
                source: Source::Bundle,
                outer: nested.clone(),
                inner: nested,
                isolation,
                pod,
                ..Container::unknown(why.unwrap_or(Unknown::Unreadable))
            }
        },
    )
}

/// Records with the index of the container that each is of; one past the last is the host.
fn any_records(record: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<(Vec<u8>, usize)>> {
    vec((record, 0..3_usize), 1..20)
}

/// Both ways of showing all these events.
fn shown(
    output: &str,
    terminal: Option<usize>,
    tracer: &'static dyn Tracer,
    containers: &[Container],
    records: &[(Vec<u8>, usize)],
) -> (String, String) {
    let format = Format::parse(output).unwrap();
    let mut fast = EventRenderer::new(&format, tracer, NODE, terminal, true).unwrap();
    let mut plain =
        Renderer::<Events>::new(&format, |layout| Table::new(layout, tracer, NODE, terminal, true)).unwrap();
    let (mut by_fast, mut by_plain) = (Vec::new(), Vec::new());
    fast.begin(&mut by_fast);
    plain.begin(&mut by_plain);
    let mut kept: Vec<Kept> = (0..=containers.len()).map(|_| Kept::default()).collect();
    for (record, container) in records {
        let event = Event::decode(tracer, record).unwrap();
        let timestamp = 1_795_212_901_000_000_000 + i128::from(event.header.timestamp);
        let container_of = containers.get(*container);
        let row = Row { timestamp, node: NODE, kind: tracer.name(), event: &event, container: container_of };
        fast.row(&row, &mut kept[(*container).min(containers.len())], &mut by_fast).unwrap();
        plain.row(&row, &mut by_plain).unwrap();
    }
    (String::from_utf8(by_fast).unwrap(), String::from_utf8(by_plain).unwrap())
}

/// Checks lines that may be shown on a terminal of this width.
fn check_shown(text: &str, lines: usize, terminal: Option<usize>) -> Result<(), TestCaseError> {
    prop_assert!(is_safe(text), "{:?}", text);
    prop_assert_eq!(text.matches('\n').count(), lines);
    for line in text.lines() {
        let width: usize = line.chars().filter_map(UnicodeWidthChar::width).sum();
        prop_assert!(terminal.is_none_or(|terminal| width <= terminal), "{} wide: {:?}", width, line);
    }
    Ok(())
}

fn outputs() -> impl Strategy<Value = &'static str> {
    select(vec![
        "json",
        "columns",
        "wide",
        "custom-columns=COMM,POD,PID,TIMESTAMP,NODE,TYPE,UID,CONTAINERPID",
        "custom-columns=NAMESPACE",
        "jsonpretty",
    ])
}

proptest! {
    #[test]
    fn opens_are_shown_the_same(
        output in outputs(),
        terminal in prop::option::of(40..200_usize),
        containers in vec(any_container(), 2),
        records in any_records(any_open()),
    ) {
        let (fast, plain) = shown(output, terminal, TRACERS[0], &containers, &records);
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn executions_are_shown_the_same(
        output in outputs(),
        terminal in prop::option::of(40..200_usize),
        containers in vec(any_container(), 2),
        records in any_records(any_exec()),
    ) {
        let (fast, plain) = shown(output, terminal, TRACERS[1], &containers, &records);
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn no_name_path_or_argument_leads_out_of_its_line_or_off_the_terminal(
        output in select(vec!["columns", "wide", "json"]),
        // Every table has room on the narrowest.
        terminal in prop::option::of(140..300_usize),
        containers in vec(any_container(), 2),
        opens in any_records(any_open()),
        executions in any_records(any_exec()),
    ) {
        for (tracer, records) in TRACERS.into_iter().zip([opens, executions]) {
            let (text, _) = shown(output, terminal, tracer, &containers, &records);
            let is_table = output != "json";
            let lines = records.len() + usize::from(is_table);
            check_shown(&text, lines, terminal.filter(|_| is_table))?;
        }
    }
}

/// What was written as lines of JSON, read back and shown.
fn read_back(
    output: &str,
    terminal: Option<usize>,
    tracer: &'static dyn Tracer,
    containers: &[Container],
    records: &[(Vec<u8>, usize)],
) -> String {
    let (lines, _) = shown("json", None, tracer, containers, records);
    let format = Format::parse(output).unwrap();
    let mut renderer = EventRenderer::new(&format, tracer, NODE, terminal, true).unwrap();
    let mut out = Vec::new();
    renderer.begin(&mut out);
    let (mut reader, mut record) = (Reader::new(tracer), Vec::new());
    for line in lines.lines() {
        record.clear();
        let told = reader.read(line.as_bytes(), &mut record).unwrap();
        let Told::Event { timestamp, about } = told else { panic!("no event: {line}") };
        let event = Event::decode(tracer, &record).unwrap();
        let container = about.container.as_ref();
        let row = Row { timestamp, node: NODE, kind: tracer.name(), event: &event, container };
        renderer.row(&row, &mut about.kept.lock().unwrap(), &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

proptest! {
    #[test]
    fn opens_that_were_read_back_are_shown_the_same(
        output in prop_oneof![4 => outputs(), 1 => Just("yaml")],
        terminal in prop::option::of(40..200_usize),
        containers in vec(any_container(), 2),
        records in any_records(any_open()),
    ) {
        let (direct, _) = shown(output, terminal, TRACERS[0], &containers, &records);
        prop_assert_eq!(read_back(output, terminal, TRACERS[0], &containers, &records), direct);
    }

    #[test]
    fn executions_that_were_read_back_are_shown_the_same(
        output in prop_oneof![4 => outputs(), 1 => Just("yaml")],
        terminal in prop::option::of(40..200_usize),
        containers in vec(any_container(), 2),
        records in any_records(any_exec()),
    ) {
        let (direct, _) = shown(output, terminal, TRACERS[1], &containers, &records);
        prop_assert_eq!(read_back(output, terminal, TRACERS[1], &containers, &records), direct);
    }
}
