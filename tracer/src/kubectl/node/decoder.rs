//! Decodes what a node's `tracer` sends. Everything that depends on the form of the stream is in this file: JSON lines on
//! standard output, status lines on standard error.

use std::sync::Arc;

use crate::{
    kinds::Tracer,
    kubectl::{
        account::Summary,
        batch::{Batch, Item},
        lines::{Line, Lines},
    },
    read::{Listed, Reader, Told},
    run::lease,
};

/// The longest line of standard output: the longest event has 50 KiB.
const LINE_MAX: usize = 1 << 20;
/// The longest line of standard error that is shown.
const LOG_LINE_MAX: usize = 1024;
/// How many bytes of containers a node may send before all nodes have sent their lists.
const LIST_MAX: usize = 16 << 20;

/// Decodes the stream of one node, over all runs of its `tracer`.
#[derive(Debug)]
pub(in crate::kubectl) struct Decoder {
    node: Arc<str>,
    stdout: Lines,
    stderr: Lines,
    records: Records,
}

/// Decodes lines of standard output.
#[derive(Debug)]
struct Records {
    content: Content,
    /// Whether the run is ready.
    ready: bool,
    /// What is left of [`LIST_MAX`].
    list_capacity: usize,
}

#[derive(Debug)]
enum Content {
    Events(Reader),
    Containers,
}

/// A part of the stream.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) batch: Batch,
    pub(super) notices: Vec<Notice>,
}

/// Anything but events, containers and losses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// All programs are attached and running containers are known.
    Ready,
    /// The answer to a heartbeat.
    Alive,
    /// The totals of the run.
    Summary(Summary),
    /// A line of the log, as it was written.
    Log(String),
    /// A line that no `tracer` writes, with the reason. It is left out.
    Invalid(String),
}

impl Decoder {
    /// Decodes the output of `tracer trace`.
    pub(in crate::kubectl) fn events(node: Arc<str>, tracer: &'static dyn Tracer) -> Self {
        Self::new(node, Content::Events(Reader::new(tracer)))
    }

    /// Decodes the output of `tracer list-containers`.
    pub(in crate::kubectl) fn containers(node: Arc<str>) -> Self {
        Self::new(node, Content::Containers)
    }

    fn new(node: Arc<str>, content: Content) -> Self {
        Self {
            node,
            stdout: Lines::new(LINE_MAX),
            stderr: Lines::new(LOG_LINE_MAX),
            records: Records { content, ready: false, list_capacity: LIST_MAX },
        }
    }

    /// Prepares for the output of a new run.
    pub(super) fn start_run(&mut self) {
        self.stdout = Lines::new(LINE_MAX);
        self.stderr = Lines::new(LOG_LINE_MAX);
        self.records.ready = false;
    }

    /// Decodes bytes of standard output.
    pub(super) fn stdout(&mut self, bytes: &[u8]) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        self.stdout.feed(bytes, |line| self.records.decode(line, &mut decoded));
        decoded
    }

    /// Decodes bytes of standard error.
    pub(super) fn stderr(&mut self, bytes: &[u8]) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        self.stderr.feed(bytes, |line| decoded.notices.extend(notice(line)));
        self.records.ready |= decoded.notices.contains(&Notice::Ready);
        decoded
    }

    /// Decodes the lines that the run has begun and did not end.
    pub(super) fn finish_run(&mut self) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        self.stderr.finish(|line| decoded.notices.extend(notice(line)));
        self.stdout.finish(|line| self.records.decode(line, &mut decoded));
        decoded
    }
}

impl Decoded {
    fn new(node: &Arc<str>) -> Self {
        Self { batch: Batch::new(Arc::clone(node)), notices: Vec::new() }
    }
}

impl Records {
    fn decode(&mut self, line: Line<'_>, decoded: &mut Decoded) {
        let result = match line {
            Line::Whole(line) => self.append(line, &mut decoded.batch),
            Line::Cut(_) => Err("it is too long or incomplete".to_owned()),
        };
        if let Err(reason) = result {
            decoded.notices.push(Notice::Invalid(reason));
        }
    }

    fn append(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), String> {
        let item = match &mut self.content {
            Content::Events(reader) => {
                let start = batch.records.len();
                let read = reader.read(line, &mut batch.records).map_err(|error| error.to_string())?;
                match read {
                    Told::Event { timestamp, about } => {
                        Item::Event { timestamp, about, record: start..batch.records.len() }
                    }
                    Told::Lost { timestamp, lost } => Item::Lost { timestamp: Some(timestamp), lost },
                }
            }
            Content::Containers => {
                if !self.ready {
                    let rest = self.list_capacity.checked_sub(line.len());
                    self.list_capacity = rest.ok_or("the list is too long")?;
                }
                Item::Container(Box::new(Listed::read(line).map_err(|error| error.to_string())?))
            }
        };
        batch.bytes += line.len();
        batch.items.push(item);
        Ok(())
    }
}

/// The meaning of a line of standard error; none for an empty one.
fn notice(line: Line<'_>) -> Option<Notice> {
    let line = match line {
        Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
        Line::Cut(line) => format!("{}…", String::from_utf8_lossy(line)),
    };
    match line.strip_prefix("tracer: ") {
        Some(lease::ALIVE) => Some(Notice::Alive),
        Some(status) if status.starts_with("ready") => Some(Notice::Ready),
        Some(status) if let Some(summary) = parse_summary(status) => Some(Notice::Summary(summary)),
        _ if line.is_empty() => None,
        _ => Some(Notice::Log(line)),
    }
}

/// Reads `seen N emitted N filtered N lost N`.
fn parse_summary(status: &str) -> Option<Summary> {
    let mut words = status.split(' ');
    let mut number = |name: &str| {
        let named = words.next() == Some(name);
        words.next().filter(|_| named)?.parse::<u64>().ok()
    };
    let (_seen, emitted, filtered, lost) =
        (number("seen")?, number("emitted")?, number("filtered")?, number("lost")?);
    words.next().is_none().then_some(Summary { emitted, filtered, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_summary_line_is_a_summary() {
        let summary = Summary { emitted: 2, filtered: 3, lost: 4 };
        assert_eq!(parse_summary("seen 9 emitted 2 filtered 3 lost 4"), Some(summary));
        for other in [
            "seen 9 emitted 2 filtered 3 lost",
            "seen 9 emitted 2 filtered 3 lost 4 more",
            "seen 9 emitted -2 filtered 3 lost 4",
            "seen 9 emitted 2 lost 4 filtered 3",
            "seen of containers",
            "",
        ] {
            assert_eq!(parse_summary(other), None, "{other}");
        }
    }

    #[test]
    fn standard_error_has_notices_and_the_log() {
        let mut decoder = Decoder::containers("n".into());
        let decoded = decoder.stderr(b"tracer: alive\n\n WARN x\ntracer: ready\ntracer: other\nbegun");
        let log = |text: &str| Notice::Log(text.to_owned());
        assert_eq!(decoded.notices, [Notice::Alive, log(" WARN x"), Notice::Ready, log("tracer: other")]);
        assert_eq!(decoder.finish_run().notices, [log("begun…")]);
    }

    #[test]
    fn a_list_is_bounded_until_its_node_is_ready() {
        let mut decoder = Decoder::containers("n".into());
        decoder.records.list_capacity = 3;
        let reasons = |decoded: Decoded| match &decoded.notices[..] {
            [Notice::Invalid(reason)] => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reasons(decoder.stdout(b"long\n")), "the list is too long");
        decoder.stderr(b"tracer: ready\n");
        assert_ne!(reasons(decoder.stdout(b"long\n")), "the list is too long");
    }
}
