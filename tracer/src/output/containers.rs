//! Rows of containers: what they hold, their columns, and their fields in JSON and YAML.

use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::{
    kinds::Signal,
    model::{Container, ExitStatus, Pod},
    output::{
        Document, Format, Look, Table, age,
        columns::{Column, ColumnNames, Columns, Rows},
        look::Mark,
        timestamp::format_timestamp,
    },
};

/// The kind of rows that are containers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Containers {}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListOf {
    /// The containers of one node.
    Node,
    /// Those of several, of which the usual columns tell the name.
    Cluster,
}

/// A container with all that is shown of it.
#[derive(Debug)]
pub(crate) struct ContainerRow<'a> {
    /// The node's name.
    pub(crate) node: &'a str,
    /// What happened to it; only where containers are watched.
    pub(crate) event: Option<ContainerEvent>,
    /// What differs from the row before, by the names of JSON's fields; only where the container was modified.
    pub(crate) changed: Vec<&'a str>,
    /// The container.
    pub(crate) container: &'a Container,
    /// Its first process, as `tracer` sees it; 0 where there is none.
    pub(crate) pid: u32,
    /// When it started, in nanoseconds since 1970.
    pub(crate) started: Option<i128>,
    /// What its age is counted to, in nanoseconds since 1970.
    pub(crate) now: i128,
    /// How its first process has exited, if it has ended and that is known.
    pub(crate) exit: Option<ExitStatus>,
}

/// What happened to a container that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ContainerEvent {
    /// It is there, or has come.
    Added,
    /// More is known of it.
    Modified,
    /// It has ended.
    Deleted,
}

impl ContainerEvent {
    /// As it is shown in columns, which is as kubectl does.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A container as JSON has it. The contract of the field names is in docs/json.md.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerLine<'a> {
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<ContainerEvent>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    changed: &'a [&'a str],
    k8s: Option<&'a Pod>,
    container: &'a Container,
    pid: Option<u32>,
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_signal: Option<String>,
}

/// Names of the fields of [`ContainerLine`] but its objects, those of `watch` included.
pub(crate) fn container_fields(watch: bool) -> Vec<&'static str> {
    let (watched, ended): (&[_], &[_]) =
        if watch { (&["event", "changed"], &["exitCode", "exitSignal"]) } else { (&[], &[]) };
    [&["node"], watched, &["pid", "startedAt"], ended].concat()
}

impl ContainerRow<'_> {
    fn pid(&self) -> Option<u32> {
        (self.pid != 0).then_some(self.pid)
    }

    fn exit_signal(&self) -> Option<Signal> {
        self.exit.and_then(ExitStatus::signal).and_then(Signal::of)
    }

    fn line(&self) -> ContainerLine<'_> {
        ContainerLine {
            node: self.node,
            event: self.event,
            changed: &self.changed,
            k8s: self.container.pod.as_ref(),
            container: self.container,
            pid: self.pid(),
            started_at: self.started.map(format_timestamp),
            exit_code: self.exit.and_then(ExitStatus::code),
            exit_signal: self.exit_signal().map(|signal| signal.to_string()),
        }
    }
}

impl Rows for Containers {
    type Row<'a> = ContainerRow<'a>;

    fn node<'r>(row: &'r ContainerRow<'_>) -> &'r str {
        row.node
    }

    fn container<'r>(row: &'r ContainerRow<'_>) -> Option<&'r Container> {
        Some(row.container)
    }
}

type Of = Column<Containers>;

const EVENT: Of = Column::new("EVENT", 8, |row, out| {
    out.write_all(row.event.map_or("", ContainerEvent::as_str).as_bytes())
});
const PID: Of = Column::new("PID", 7, |row, out| row.pid().map_or(Ok(()), |pid| write!(out, "{pid}")));
const AGE: Of = Column::new("AGE", 6, |row, out| {
    row.started.map_or(Ok(()), |started| out.write_all(age::format(row.now - started).as_bytes()))
});
const ISOLATION: Of = Column::new("ISOLATION", 9, |row, out| {
    row.container.isolation.map_or(Ok(()), |isolation| out.write_all(isolation.as_str().as_bytes()))
});
const POD_UID: Of = Column::new("PODUID", 36, |row, out| {
    let uid = row.container.pod.as_ref().and_then(|pod| pod.pod_uid.as_deref());
    out.write_all(uid.unwrap_or_default().as_bytes())
});
const EXIT: Of =
    Of::new("EXIT", 7, |row, out| match (row.exit.and_then(ExitStatus::code), row.exit_signal()) {
        (Some(code), _) => write!(out, "{code}"),
        (None, Some(signal)) => write!(out, "{signal}"),
        (None, None) => Ok(()),
    })
    .marked(Mark::Alarm);
const CHANGED: Of = Column::new("CHANGED", 16, |row, out| {
    for (index, name) in row.changed.iter().enumerate() {
        write!(out, "{}{name}", if index > 0 { "," } else { "" })?;
    }
    Ok(())
});
/// Stands for the labels of a pod as long as they are unknown, as kubectl has it.
const UNKNOWN: &str = "<unknown>";
const LABELS: Of = Column::new("LABELS", 32, |row, out| {
    if row.container.lacks_labels() {
        return out.write_all(UNKNOWN.as_bytes());
    }
    let labels = row.container.pod.iter().flat_map(|pod| pod.labels.iter().flatten());
    for (index, (key, value)) in labels.enumerate() {
        write!(out, "{}{key}={value}", if index > 0 { "," } else { "" })?;
    }
    Ok(())
});

/// The columns of `columns`.
const NARROW: [Of; 10] = [
    Column::NAMESPACE,
    Column::POD,
    Column::CONTAINER,
    Column::TYPE,
    Column::RUNTIME,
    Column::SHORT_CONTAINER_ID,
    PID,
    Column::IMAGE,
    Column::SOURCE,
    AGE,
];
/// The columns of `wide`.
const WIDE: [Of; 14] = [
    Column::NODE,
    Column::NAMESPACE,
    Column::POD,
    Column::CONTAINER,
    Column::TYPE,
    Column::RUNTIME,
    Column::CONTAINER_ID,
    PID,
    Column::IMAGE,
    Column::SOURCE,
    AGE,
    ISOLATION,
    POD_UID,
    LABELS,
];

impl Columns<Containers> {
    fn of_containers(of: ListOf, watch: bool) -> Self {
        let (event, changed) = if watch { (&[EVENT][..], &[EXIT, CHANGED][..]) } else { (&[][..], &[][..]) };
        let nodes = if of == ListOf::Cluster { &[Column::NODE][..] } else { &[] };
        Self {
            narrow: [event, nodes, &NARROW, changed].concat(),
            wide: [event, &WIDE, changed].concat(),
            further: Vec::new(),
        }
    }
}

/// The names of the columns of containers.
pub(crate) fn container_columns(of: ListOf, watch: bool) -> ColumnNames {
    Columns::of_containers(of, watch).names()
}

/// Writes containers in one format.
#[derive(Debug)]
pub(crate) struct ContainerRenderer {
    renderer: Renderer,
    watch: bool,
}

#[derive(Debug)]
enum Renderer {
    /// In columns.
    Table(Table<Containers>),
    /// For programs.
    Document(Document),
}

impl ContainerRenderer {
    /// As `-o` says. With `watch` rows say what happened. `node` is the node's name, or the longest one.
    pub(crate) fn new(of: ListOf, output: &str, node: &str, look: Look, watch: bool) -> Result<Self, String> {
        let all = Columns::of_containers(of, watch);
        let renderer = match Format::parse(output)? {
            Format::Table(layout) => Renderer::Table(Table::of_columns(&layout, all, node, look)?),
            Format::Document(document) => Renderer::Document(document),
        };
        Ok(Self { renderer, watch })
    }

    /// Whether they are shown in columns, for people.
    #[cfg(feature = "kubectl")]
    #[must_use]
    pub(crate) const fn is_table(&self) -> bool {
        matches!(self.renderer, Renderer::Table(_))
    }

    /// Appends the heading and the first rows: columns are as wide as these need.
    pub(crate) fn begin(&mut self, rows: &[ContainerRow<'_>], out: &mut Vec<u8>) -> io::Result<()> {
        if let Renderer::Table(table) = &mut self.renderer {
            table.fit_to(rows, self.watch)?;
            table.next_row(out);
        }
        rows.iter().try_for_each(|row| self.row(row, out))
    }

    /// See [`Table::resize`].
    pub(crate) fn resize(&mut self, width: impl FnOnce() -> Option<usize>) {
        if let Renderer::Table(table) = &mut self.renderer {
            table.resize(width);
        }
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, row: &ContainerRow<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.renderer {
            Renderer::Table(table) => table.write_row_in_line(row, out),
            Renderer::Document(document) => document.write(&row.line(), out),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use unicode_width::UnicodeWidthChar;

    use super::*;
    use crate::model::{ContainerType, Isolation, Nested, Source, Unknown};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    /// 2026-11-20T22:15:01.5Z.
    const STARTED: i128 = 1_795_212_901_500_000_000;

    fn of_pod() -> Container {
        Container {
            id: ID.into(),
            runtime: "containerd".into(),
            kind: ContainerType::Container,
            name: None,
            image: Some("nginx:1.29".into()),
            source: Source::Cri,
            why: None,
            outer: None,
            inner: Some(Nested { id: "inner".into(), runtime: "runc".into() }),
            isolation: Some(Isolation::Gvisor),
            pod: Some(Pod {
                namespace: "shop".into(),
                name: "web-0".into(),
                pod_uid: Some("u-1".into()),
                container: Some("nginx".into()),
                labels: Some([("app".into(), "web".into()), ("tier".into(), String::new())].into()),
            }),
            pod_known: true,
            sandbox_id: None,
            privileged: false,
            in_process: false,
        }
    }

    fn row(container: &Container) -> ContainerRow<'_> {
        let now = STARTED + 5 * 24 * 3600 * 1_000_000_000;
        ContainerRow {
            node: "n1",
            event: None,
            changed: Vec::new(),
            container,
            pid: 42,
            started: Some(STARTED),
            now,
            exit: None,
        }
    }

    fn unknown(container: &Container) -> ContainerRow<'_> {
        ContainerRow { pid: 0, started: None, now: STARTED, ..row(container) }
    }

    fn shown(output: &str, terminal: Option<usize>, watch: bool, rows: &[ContainerRow<'_>]) -> String {
        let mut renderer =
            ContainerRenderer::new(ListOf::Node, output, "n1", Look::plain(terminal), watch).unwrap();
        let mut out = Vec::new();
        renderer.begin(rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_named_as_they_are_written() {
        let container = of_pod();
        let watched = |exit| ContainerRow {
            event: Some(ContainerEvent::Modified),
            changed: vec!["image"],
            exit: Some(exit),
            ..row(&container)
        };
        let written = |rows: &[ContainerRow<'_>]| -> BTreeSet<String> {
            let lines = rows.iter().map(|row| serde_json::to_value(row.line()).unwrap());
            lines.flat_map(|line| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).collect()
        };
        for (watch, rows) in [
            (false, vec![row(&container)]),
            (true, vec![watched(ExitStatus::Code(1)), watched(ExitStatus::Signal(9))]),
        ] {
            let named =
                container_fields(watch).into_iter().chain(["k8s", "container"]).map(ToOwned::to_owned);
            assert_eq!(named.collect::<BTreeSet<_>>(), written(&rows), "{watch}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_they_have() {
        assert_eq!(
            shown("columns", None, false, &[row(&of_pod()), unknown(&Container::unknown(Unknown::Late))]),
            "\
NAMESPACE POD   CONTAINER TYPE      RUNTIME    CONTAINERID        PID IMAGE      SOURCE      AGE
shop      web-0 nginx     container containerd 0123456789ab/inner 42  nginx:1.29 cri         5d
-         -     -         container -          -                  -   -          cgroup:late -
"
        );
    }

    #[test]
    fn one_long_value_does_not_move_all_others() {
        let (long, other) = (Container { id: "x".repeat(10_000), ..of_pod() }, of_pod());
        let text = shown("columns", None, false, &[row(&long), row(&other)]);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths[1] > 10_000 && lengths[0] < 300 && lengths[2] < 300, "{lengths:?}");
    }

    #[test]
    fn wide_has_everything_whole() {
        let text = shown("wide", None, false, &[row(&of_pod())]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..3], ["NODE", "NAMESPACE", "POD"]);
        assert_eq!(words[0][11..], ["ISOLATION", "PODUID", "LABELS"]);
        assert_eq!(words[1][6], format!("{ID}/inner"));
        assert_eq!(words[1][11..], ["gvisor", "u-1", "app=web,tier="]);
    }

    /// Where each column of a table begins, by its heading.
    fn columns_of(heading: &str) -> Vec<usize> {
        let starts = |(at, c): (usize, char)| c != ' ' && (at == 0 || heading.as_bytes()[at - 1] == b' ');
        heading.char_indices().filter(|place| starts(*place)).map(|(at, _)| at).collect()
    }

    /// A row is in line where each of its values begins below its heading.
    #[track_caller]
    fn assert_in_line(heading: &str, row: &str) {
        assert_eq!(columns_of(heading), columns_of(row), "\n{heading}\n{row}");
    }

    #[test]
    fn rows_that_come_later_are_in_line() {
        for output in ["columns", "wide"] {
            let mut renderer =
                ContainerRenderer::new(ListOf::Node, output, "n1", Look::plain(None), true).unwrap();
            let mut out = Vec::new();
            renderer.begin(&[], &mut out).unwrap();
            let container = Container { inner: None, ..of_pod() };
            for event in [ContainerEvent::Added, ContainerEvent::Modified, ContainerEvent::Deleted] {
                let later =
                    ContainerRow { event: Some(event), changed: vec!["labels", "image"], ..row(&container) };
                renderer.row(&later, &mut out).unwrap();
            }
            let text = String::from_utf8(out).unwrap();
            let (heading, rows) = text.split_once('\n').unwrap();
            assert_eq!(rows.lines().count(), 3);
            rows.lines().for_each(|row| assert_in_line(heading, row));
        }
    }

    #[test]
    fn a_value_wider_than_its_column_moves_only_what_is_next_to_it() {
        let mut renderer =
            ContainerRenderer::new(ListOf::Node, "columns", "n1", Look::plain(None), true).unwrap();
        let (mut out, name) = (Vec::new(), "n".repeat(40));
        renderer.begin(&[], &mut out).unwrap();
        let pod = Pod { name: name.clone(), ..of_pod().pod.unwrap() };
        let container = Container { pod: Some(pod), inner: None, ..of_pod() };
        renderer
            .row(&ContainerRow { event: Some(ContainerEvent::Added), ..row(&container) }, &mut out)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let starts = lines.iter().map(|line| columns_of(line)).collect::<Vec<_>>();
        // EVENT, NAMESPACE and POD, then CONTAINER, which gives way, and TYPE and all others.
        assert_eq!(starts[0][..3], starts[1][..3], "{text}");
        assert_eq!(starts[1][3], starts[0][2] + name.len() + 1, "{text}");
        assert_eq!(starts[0][4..], starts[1][4..], "{text}");
    }

    #[test]
    fn unknown_labels_are_not_shown_as_none() {
        let with = |labels| Container { pod: of_pod().pod.map(|pod| Pod { labels, ..pod }), ..of_pod() };
        let shown = |container: &Container| shown("custom-columns=LABELS", None, false, &[row(container)]);
        assert_eq!(shown(&with(None)), "LABELS\n<unknown>\n");
        assert_eq!(shown(&with(Some(BTreeMap::new()))), "LABELS\n-\n");
        assert_eq!(shown(&Container::unknown(Unknown::Late)), "LABELS\n-\n");
    }

    #[test]
    fn a_modified_row_shows_what_changed() {
        let container = of_pod();
        let modified = || ContainerRow {
            event: Some(ContainerEvent::Modified),
            changed: vec!["labels", "image"],
            ..row(&container)
        };
        for output in ["columns", "wide"] {
            let text = shown(output, None, true, &[modified()]);
            let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(
                (lines[0].last(), lines[1].last()),
                (Some(&"CHANGED"), Some(&"labels,image")),
                "{text}"
            );
            assert_eq!(lines[1][0], "MODIFIED");
        }
        let json = shown("json", None, true, &[modified()]);
        assert!(
            json.starts_with(r#"{"node":"n1","event":"modified","changed":["labels","image"],"k8s":{"#),
            "{json}"
        );
        assert!(!shown("columns", None, false, &[row(&container)]).contains("CHANGED"));
    }

    #[test]
    fn watching_begins_with_what_happened() {
        let container = of_pod();
        let deleted = ContainerRow { event: Some(ContainerEvent::Deleted), ..row(&container) };
        let text = shown("columns", None, true, &[]);
        assert!(text.starts_with("EVENT    NAMESPACE        POD "), "{text}");
        let mut renderer = ContainerRenderer::new(
            ListOf::Node,
            "wide",
            "n1",
            Look { header: false, ..Look::plain(None) },
            true,
        )
        .unwrap();
        let mut out = Vec::new();
        renderer.begin(&[], &mut out).unwrap();
        renderer.row(&deleted, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("DELETED  n1   shop  "), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert!(
            shown("json", None, true, &[deleted]).starts_with(r#"{"node":"n1","event":"deleted","k8s":{"#)
        );
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let container = of_pod();
        assert_eq!(
            shown("json", None, false, &[row(&container), unknown(&Container::unknown(Unknown::Late))]),
            format!(
                "{}{}{}{}{}\n{}{}\n",
                r#"{"node":"n1","k8s":{"namespace":"shop","pod":"web-0","podUid":"u-1","container":"nginx","#,
                r#""labels":{"app":"web","tier":""}},"#,
                format_args!(r#""container":{{"id":"{ID}","runtime":"containerd","type":"container","#),
                r#""image":"nginx:1.29","source":"cri","inner":{"id":"inner","runtime":"runc"},"isolation":"gvisor"},"#,
                r#""pid":42,"startedAt":"2026-11-20T22:15:01.500000000Z"}"#,
                r#"{"node":"n1","k8s":null,"container":{"id":"","runtime":"","type":"container","image":null,"#,
                r#""source":"cgroup","why":"late"},"pid":null,"startedAt":null}"#,
            )
        );
        let pretty = shown("jsonpretty", None, false, &[row(&container)]);
        let yaml = shown("yaml", None, false, &[row(&container)]);
        let plain: serde_json::Value =
            serde_json::from_str(&shown("json", None, false, &[row(&container)])).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).unwrap(), plain);
        assert_eq!(serde_yaml_ng::from_str::<serde_json::Value>(&yaml).unwrap(), plain);
        assert!(pretty.contains("\n  \"pid\": 42,\n") && yaml.starts_with("---\nnode: n1\n"));
    }

    #[test]
    fn custom_columns_have_all_names_and_whole_ids() {
        let container = of_pod();
        let text = shown("custom-columns=containerid,AGE,labels", None, false, &[row(&container)]);
        assert_eq!(text.lines().nth(1).unwrap(), format!("{ID}/inner 5d  app=web,tier="));
        let error = |output: &str| {
            ContainerRenderer::new(ListOf::Node, output, "n1", Look::plain(None), false).unwrap_err()
        };
        assert!(error("custom-columns=COMM").contains("CONTAINERID"));
        assert!(error("custom-columns=EVENT").contains("EVENT"), "it is there only while watching");
        assert!(error("xml").contains("jsonpretty"));
    }

    fn any_container() -> impl Strategy<Value = Container> {
        let text = any::<String>;
        let why = [Unknown::Untrusted, Unknown::Unreadable, Unknown::NotUnderstood, Unknown::Late];
        let pod = (text(), text(), any::<Option<String>>(), any::<Option<String>>(), labels());
        let container =
            (text(), text(), any::<Option<String>>(), prop::option::of(pod), any::<Option<String>>());
        (container, prop::option::of(prop::sample::select(why.to_vec()))).prop_map(
            |((id, runtime, image, pod, inner), why)| Container {
                id,
                runtime,
                image,
                why,
                inner: inner.map(|id| Nested { id, runtime: String::new() }),
                pod: pod.map(|(namespace, name, pod_uid, container, labels)| Pod {
                    namespace,
                    name,
                    pod_uid,
                    container,
                    labels,
                }),
                ..Container::unknown(Unknown::Late)
            },
        )
    }

    fn labels() -> impl Strategy<Value = Option<BTreeMap<String, String>>> {
        prop::option::of(prop::collection::btree_map(any::<String>(), any::<String>(), 0..3))
    }

    /// A row of each container: every other one says what happened, the rest have neither process nor start.
    fn rows(containers: &[Container]) -> Vec<ContainerRow<'_>> {
        let with_all = |container| ContainerRow { event: Some(ContainerEvent::Modified), ..row(container) };
        let even = containers.iter().step_by(2).map(with_all);
        even.chain(containers.iter().skip(1).step_by(2).map(unknown)).collect()
    }

    proptest! {
        #[test]
        fn no_name_leads_to_a_control_character_or_another_line(
            containers in prop::collection::vec(any_container(), 1..4),
            output in prop::sample::select(vec!["columns", "wide", "json", "custom-columns=LABELS,POD"]),
            watch: bool,
        ) {
            let text = shown(output, None, watch, &rows(&containers));
            prop_assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{:?}", text);
            let header = usize::from(output != "json");
            prop_assert_eq!(text.matches('\n').count(), containers.len() + header);
        }

        #[test]
        fn documents_keep_what_they_hide(container in any_container()) {
            for output in ["json", "jsonpretty", "yaml"] {
                let text = shown(output, None, false, &[row(&container)]);
                prop_assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{:?}", text);
                let line: serde_json::Value = match output {
                    "yaml" => serde_yaml_ng::from_str(&text).unwrap(),
                    _ => serde_json::from_str(&text).unwrap(),
                };
                prop_assert_eq!(line["container"]["id"].as_str(), Some(&*container.id));
            }
        }

        #[test]
        fn a_table_is_never_wider_than_its_terminal(
            containers in prop::collection::vec(any_container(), 0..4),
            output in prop::sample::select(vec!["columns", "wide"]),
            watch: bool,
            terminal in 160..400_usize,
        ) {
            let rows = rows(&containers);
            let mut renderer = ContainerRenderer::new(ListOf::Node, output, "n1", Look::plain(Some(terminal)), watch).unwrap();
            let mut out = Vec::new();
            // The last one comes when the columns have their width.
            let (last, first) = rows.split_last().map_or((None, &[][..]), |(last, first)| (Some(last), first));
            renderer.begin(first, &mut out).unwrap();
            last.map_or(Ok(()), |row| renderer.row(row, &mut out)).unwrap();
            for line in std::str::from_utf8(&out).unwrap().lines() {
                let width: usize = line.chars().filter_map(UnicodeWidthChar::width).sum();
                prop_assert!(width <= terminal, "{} in {}: {:?}", width, terminal, line);
            }
        }
    }
}
