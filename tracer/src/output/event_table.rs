//! Events in columns, many of them: what [`Table`] shows, with the cells of a container and of a process written once for
//! many rows.

use std::{io, ops::Range};

use crate::{
    model::Container,
    output::{
        ContainerTexts, Row, Table,
        columns::{Scope, end_line},
        events::Process,
    },
    text_cache::TextCache,
};

/// Writes events in columns.
#[derive(Debug)]
pub(crate) struct EventTable {
    table: Table,
    runs: Vec<Run>,
    /// The layout of the last row.
    layout: u32,
}

/// Columns next to each other whose cells are the same for as many rows.
#[derive(Debug)]
enum Run {
    /// For all of a container.
    Container(Range<usize>),
    /// For all of a process.
    Process(Range<usize>, TextCache<Process>),
    /// For one.
    Row(Range<usize>),
}

impl Run {
    /// Drops cells that were written for another layout.
    fn clear(&mut self) {
        if let Self::Process(_, processes) = self {
            *processes = TextCache::new();
        }
    }
}

impl EventTable {
    pub(crate) fn new(table: Table) -> Self {
        let mut runs = Vec::new();
        let mut start = 0;
        let same = |a: &Scope, b: &Scope| a == b;
        for columns in table.scopes().collect::<Vec<_>>().chunk_by(same) {
            let range = start..start + columns.len();
            start = range.end;
            runs.push(match columns[0] {
                Scope::Container => Run::Container(range),
                Scope::Process => Run::Process(range, TextCache::new()),
                Scope::Row => Run::Row(range),
            });
        }
        Self { table, runs, layout: 0 }
    }

    /// See [`Table::begin`].
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        self.table.begin(out);
    }

    /// See [`Table::resize`].
    pub(crate) fn resize(&mut self, width: impl FnOnce() -> Option<usize>) {
        self.table.resize(width);
    }

    /// See [`Table::expect`].
    pub(crate) fn expect(&mut self, node: &str, container: Option<&Container>) -> io::Result<()> {
        self.table.expect(node, container)
    }

    /// Appends an event's row.
    pub(crate) fn row(
        &mut self,
        row: &Row<'_>,
        texts_of_container: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Self { table, runs, layout } = self;
        if texts_of_container.is_empty() {
            table.expect(row.node, row.container)?;
        }
        let now = table.next_row(out);
        if std::mem::replace(layout, now) != now {
            runs.iter_mut().for_each(Run::clear);
        }
        texts_of_container.of_layout(now);
        let mut texts = 0;
        for run in runs {
            match run {
                Run::Container(columns) => {
                    texts_of_container
                        .append(texts, out, |out| table.write_cells(columns.clone(), row, out))?;
                    texts += 1;
                }
                Run::Process(columns, processes) => {
                    let process = Process::of(&row.event.header);
                    processes.append(process, out, |out| table.write_cells(columns.clone(), row, out))?;
                }
                Run::Row(columns) => table.write_cells(columns.clone(), row, out)?,
            }
        }
        end_line(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        kinds::{Event, Kinds},
        model::Pod,
        output::{EventRenderer, Format, Look},
        testing::Load,
    };

    /// 40 characters.
    const PATH: &str = "/etc/nginx/conf.d/sites-enabled/shop.tls";

    fn container(namespace: &str, pod: &str) -> Container {
        let pod = Pod {
            namespace: namespace.into(),
            name: pod.into(),
            pod_uid: None,
            container: Some("nginx".into()),
            labels: None,
        };
        Container::of_pod(pod)
    }

    fn kinds() -> Arc<Kinds> {
        Kinds::by_name(&["open"]).unwrap()
    }

    fn renderer(format: &str, look: Look) -> EventRenderer {
        EventRenderer::new(&Format::parse(format).unwrap(), &kinds(), "worker-1", look).unwrap()
    }

    /// The rows of an open in each of these containers.
    fn rows(renderer: &mut EventRenderer, containers: &[&Container]) -> Vec<String> {
        let mut out = Vec::new();
        for container in containers {
            row(renderer, container, &mut ContainerTexts::default(), &mut out);
        }
        String::from_utf8(out).unwrap().lines().map(ToOwned::to_owned).collect()
    }

    fn row(
        renderer: &mut EventRenderer,
        container: &Container,
        texts: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) {
        let kinds = kinds();
        // It has failed.
        let record = Load::ONE.open(0, PATH.as_bytes());
        let event = Event::decode(&kinds, &record).unwrap();
        let row = Row { timestamp: 0, node: "worker-1", event: &event, container: Some(container) };
        renderer.row(&row, texts, out).unwrap();
    }

    fn on_terminal(width: usize) -> Vec<String> {
        let pod = container("kube-system", "coredns-6d4b75cb6d-kcxd4");
        rows(&mut renderer("columns", Look::plain(Some(width))), &[&pod])
    }

    #[test]
    fn path_of_forty_characters_is_whole_on_any_terminal() {
        assert_eq!(
            on_terminal(200),
            [
                "NODE     NAMESPACE   POD                      CONTAINER PID     COMM            FD   ERR    PATH",
                "worker-1 kube-system coredns-6d4b75cb6d-kcxd4 nginx     337091  coredns         -1   ENOENT /etc/nginx/conf.d/sites-enabled/shop.tls",
            ]
        );
        assert_eq!(
            on_terminal(120),
            [
                "NAMESPACE   POD                      CONTAINER PID     COMM            ERR    PATH",
                "kube-system coredns-6d4b75cb6d-kcxd4 nginx     337091  coredns         ENOENT /etc/nginx/conf.d/sites-enabled/shop.tls",
            ]
        );
        let narrowest = [
            "NAMESPACE POD          CONTAINER PID     COMM     ERR    PATH",
            "kube…stem coredn…kcxd4 nginx     337091  coredns  ENOENT /etc/nginx/conf.d/sites-enabled/shop.tls",
        ];
        assert_eq!(on_terminal(80), narrowest);
        assert_eq!(on_terminal(50), narrowest);
    }

    #[test]
    fn pipe_gets_everything_whole_and_in_line() {
        let mut renderer = renderer("columns", Look::plain(None));
        let (long, short) = (container("shop", &"web".repeat(20)), container("kube-system", "dns"));
        let mut out = Vec::new();
        renderer.begin(&mut out);
        assert!(out.starts_with(b"NODE     NAMESPACE"), "a pipe has the heading at once");
        let lines = rows(&mut renderer, &[&short, &long, &short]);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines.iter().all(|line| line.ends_with(PATH)));
        assert_eq!(lines[1].len(), lines[2].len(), "in line from the longest on: {lines:#?}");
    }

    #[test]
    fn longer_names_are_whole_at_once_and_get_a_heading_at_most_once_a_screen() {
        let mut renderer = renderer("columns", Look::plain(Some(200)));
        let (short, long) = (container("shop", "web-0"), container("shop", "checkout-worker-0"));
        let mut containers = vec![&short, &long];
        containers.extend([&long; 40]);
        let lines = rows(&mut renderer, &containers);
        let headings: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("NODE")).collect();
        assert_eq!(headings.len(), 2, "{lines:#?}");
        assert!(headings[1] >= 24, "{headings:?}");
        assert_eq!(
            lines.iter().filter(|line| line.contains(" checkout-worker-0 ")).count(),
            41,
            "{lines:#?}"
        );
    }

    #[test]
    fn expected_containers_need_no_second_heading() {
        let mut renderer = renderer("columns", Look::plain(Some(200)));
        let (short, long) = (container("shop", "web-0"), container("shop", "checkout-worker-0"));
        renderer.expect("worker-1", Some(&long)).unwrap();
        let lines = rows(&mut renderer, &[&[&short; 40][..], &[&long; 10]].concat());
        assert_eq!(lines.iter().filter(|line| line.starts_with("NODE")).count(), 1, "{lines:#?}");
    }

    #[test]
    fn next_row_fits_a_terminal_that_was_resized() {
        let mut renderer = renderer("columns", Look::plain(Some(200)));
        let pod = container("kube-system", "coredns-6d4b75cb6d-kcxd4");
        let (mut texts, mut out) = (ContainerTexts::default(), Vec::new());
        row(&mut renderer, &pod, &mut texts, &mut out);
        renderer.resize(|| Some(120));
        out.clear();
        row(&mut renderer, &pod, &mut texts, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), on_terminal(120));
    }

    #[test]
    fn colours_mark_headings_pods_and_failures() {
        let look = Look { color: true, ..Look::plain(Some(200)) };
        let lines = rows(&mut renderer("columns", look), &[&container("shop", "web-0")]);
        assert!(lines[0].starts_with("\u{1b}[1mNODE"), "{lines:#?}");
        assert!(lines[1].contains("\u{1b}[31mENOENT\u{1b}[0m "), "{lines:#?}");
        assert!(lines[1].contains("mweb-0\u{1b}[0m "), "{lines:#?}");
        // What is between the marks is the same as without them.
        let plain = rows(&mut renderer("columns", Look::plain(Some(200))), &[&container("shop", "web-0")]);
        let unmarked = |line: &str| {
            line.split('\u{1b}')
                .map(|part| part.split_once('m').map_or(part, |(_, text)| text))
                .collect::<String>()
        };
        assert_eq!(lines.iter().map(|line| unmarked(line)).collect::<Vec<_>>(), plain);
    }

    #[test]
    fn flags_and_time_are_columns_of_wide() {
        let lines = rows(&mut renderer("wide", Look::plain(None)), &[&container("shop", "web-0")]);
        let words: Vec<&str> = lines.last().unwrap().split_whitespace().collect();
        assert_eq!(words[words.len() - 3..], ["ENOENT", "r", PATH]);
        let look = Look { timestamps: true, ..Look::plain(Some(200)) };
        let lines = rows(&mut renderer("columns", look), &[&container("shop", "web-0")]);
        assert!(lines[0].starts_with("TIME         NODE "), "{lines:#?}");
    }
}
