//! Decodes what a node's `tracer` sends. Everything that depends on the form of the stream is in this file: frames on standard
//! output, the log on standard error.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde::Deserialize;
use tracer_common::{container::ContainerKey, kinds::Header};
use zerocopy::FromBytes as _;

use crate::{
    frames::{Frame, FrameError, FrameReader, Hello, Listed, LostFrame, Summary},
    kinds::{Event, Kinds},
    kubectl::{
        batch::{Batch, Item, NodeContainer},
        lines::{Line, Lines},
    },
    model::{Container, Matches, Pod},
    output::{ContainerTexts, Lost},
};

/// The longest line of standard error that is shown.
const LOG_LINE_MAX: usize = 1024;
/// How many bytes of containers a node may send before all nodes have sent their lists.
const LIST_MAX: usize = 16 << 20;
/// How many containers of a node are known at a time: a node has no more keys.
const CONTAINERS_MAX: usize = 1 << 16;
/// How many bytes their descriptions may have together. One has 600.
const CONTAINERS_BYTES_MAX: usize = 64 << 20;

/// Bytes of decoded frames after which a batch is handed over.
const BATCH_MAX: usize = 256 << 10;

/// Decodes the stream of one node, over all runs of its `tracer`.
pub(in crate::kubectl) struct Decoder {
    node: Arc<str>,
    /// The kinds that are selected here: most nodes declare the same.
    kinds: Arc<Kinds>,
    stdout: Stdout,
    stderr: Lines,
    content: Content,
}

/// The state of standard output.
enum Stdout {
    /// It is read.
    Open(Box<FrameReader>),
    /// Nothing has been received yet.
    Fresh,
    /// It cannot be read any further.
    Broken,
}

/// What the frames of a run have said so far.
struct Content {
    /// Whether the run is ready.
    ready: bool,
    /// What is left of [`LIST_MAX`].
    list_capacity: usize,
    /// The kinds that the node declares.
    kinds: Option<Arc<Kinds>>,
    containers: HashMap<ContainerKey, (usize, Arc<NodeContainer>)>,
    /// Bytes of all their descriptions.
    container_bytes: usize,
}

/// A part of the stream.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) batch: Batch,
    pub(super) notices: Vec<Notice>,
    /// Whether there is more to decode already.
    pub(super) has_more: bool,
}

/// Anything but events, containers and losses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// All programs are attached and running containers are known.
    Ready,
    /// The answer to a heartbeat.
    Alive,
    /// What the selection matches.
    Matches(Matches),
    /// The totals of the run.
    Summary(Summary),
    /// A line of the log, as it was written.
    Log(String),
    /// An event or container that makes no sense, with the reason. It is left out.
    Invalid(String),
    /// Standard output cannot be read any further.
    Broken(String),
    /// The node's `tracer` does not fit this command, with the reason.
    Incompatible(String),
}

impl Decoder {
    /// Decodes the output of `tracer trace` with these kinds, or of `tracer list-containers` with none.
    pub(in crate::kubectl) fn new(node: Arc<str>, kinds: Arc<Kinds>) -> Self {
        let content = Content {
            ready: false,
            list_capacity: LIST_MAX,
            kinds: None,
            containers: HashMap::new(),
            container_bytes: 0,
        };
        Self { node, kinds, stdout: Stdout::Fresh, stderr: Lines::new(LOG_LINE_MAX), content }
    }

    /// Prepares for the output of a new run.
    pub(super) fn start_run(&mut self) {
        self.stdout = Stdout::Fresh;
        self.stderr = Lines::new(LOG_LINE_MAX);
        self.content.ready = false;
        self.content.kinds = None;
        self.content.containers.clear();
        self.content.container_bytes = 0;
    }

    /// Decodes bytes of standard output, as many as make a batch, and takes them off `bytes`. What remains is decoded by the next
    /// call, if [`Decoded::has_more`].
    pub(super) fn stdout(&mut self, bytes: &mut &[u8]) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        if let Err(error) = self.read(bytes, &mut decoded) {
            self.stdout = Stdout::Broken;
            decoded.has_more = false;
            let reason = error.to_string();
            decoded.notices.push(match error {
                FrameError::NotFrames | FrameError::Version { .. } => Notice::Incompatible(reason),
                _ => Notice::Broken(reason),
            });
        }
        decoded.batch.kinds.clone_from(&self.content.kinds);
        decoded
    }

    fn read(&mut self, bytes: &mut &[u8], decoded: &mut Decoded) -> Result<(), FrameError> {
        if matches!(self.stdout, Stdout::Fresh) {
            self.stdout = Stdout::Open(Box::new(FrameReader::new()?));
        }
        let Stdout::Open(reader) = &mut self.stdout else { return Ok(()) };
        let (content, kinds) = (&mut self.content, &self.kinds);
        loop {
            decoded.has_more = reader.feed_chunk(bytes, &mut |frame| {
                content.take(frame, kinds, decoded);
                Ok(())
            })?;
            if !decoded.has_more || decoded.size() >= BATCH_MAX {
                return Ok(());
            }
        }
    }

    /// Decodes bytes of standard error.
    pub(super) fn stderr(&mut self, bytes: &[u8]) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        self.stderr.feed(bytes, |line| decoded.notices.extend(log_line(line)));
        decoded
    }

    /// Decodes what the run has begun and did not end.
    pub(super) fn finish_run(&mut self) -> Decoded {
        let mut decoded = Decoded::new(&self.node);
        self.stderr.finish(|line| decoded.notices.extend(log_line(line)));
        if let Stdout::Open(reader) = &self.stdout
            && !reader.is_whole()
        {
            decoded.notices.push(Notice::Broken("its stream ends within a frame".into()));
        }
        decoded
    }
}

impl Decoded {
    fn new(node: &Arc<str>) -> Self {
        Self { batch: Batch::new(Arc::clone(node)), notices: Vec::new(), has_more: false }
    }
}

impl Decoded {
    /// Bytes of memory that it needs, about.
    fn size(&self) -> usize {
        self.batch.size() + self.notices.len() * size_of::<Notice>()
    }
}

/// What is known of a container.
#[derive(Deserialize)]
struct ContainerBody {
    k8s: Option<Pod>,
    container: Container,
}

impl Content {
    fn take(&mut self, frame: Frame<'_>, own: &Arc<Kinds>, decoded: &mut Decoded) {
        let result = match frame {
            Frame::Hello(hello) => self.hello(*hello, own),
            Frame::Container(key, json) => self.container(key, json),
            Frame::Forget(key) => {
                self.forget(key);
                Ok(())
            }
            Frame::Event(record) => self.event(record, &mut decoded.batch),
            Frame::Lost(LostFrame { timestamp, count, reason, hook }) => {
                let lost = Lost { count, reason: reason.into(), hook: hook.into() };
                decoded.batch.items.push(Item::Lost { timestamp: Some(timestamp.into()), lost });
                Ok(())
            }
            Frame::Ready => {
                self.ready = true;
                decoded.notices.push(Notice::Ready);
                Ok(())
            }
            Frame::Alive => {
                decoded.notices.push(Notice::Alive);
                Ok(())
            }
            Frame::Summary(summary) => {
                decoded.notices.push(Notice::Summary(summary));
                Ok(())
            }
            Frame::Listed(line) => self.listed(line, &mut decoded.batch),
            Frame::Matches(matches) => {
                decoded.notices.push(Notice::Matches(matches.bounded()));
                Ok(())
            }
        };
        if let Err(reason) = result {
            decoded.notices.push(Notice::Invalid(reason));
        }
    }

    fn hello(&mut self, hello: Hello, own: &Arc<Kinds>) -> Result<(), String> {
        let is_same = hello.kinds.iter().eq(own.iter().map(|kind| &kind.schema));
        self.kinds = Some(if is_same {
            Arc::clone(own)
        } else {
            Kinds::new(hello.kinds).map_err(|error| error.to_string())?
        });
        Ok(())
    }

    fn container(&mut self, key: ContainerKey, json: &[u8]) -> Result<(), String> {
        self.forget(key);
        if self.containers.len() >= CONTAINERS_MAX || self.container_bytes + json.len() > CONTAINERS_BYTES_MAX
        {
            return Err("it has more containers than a node has".into());
        }
        let ContainerBody { k8s, container } =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let container = Container { pod: k8s, ..container };
        self.container_bytes += json.len();
        let texts = Mutex::new(ContainerTexts::default());
        self.containers.insert(key, (json.len(), Arc::new(NodeContainer { container, texts })));
        Ok(())
    }

    fn forget(&mut self, key: ContainerKey) {
        if let Some((bytes, _)) = self.containers.remove(&key) {
            self.container_bytes -= bytes;
        }
    }

    fn event(&self, record: &[u8], batch: &mut Batch) -> Result<(), String> {
        let kinds = self.kinds.as_deref().ok_or("an event comes before the schema of its kind")?;
        if Event::decode(kinds, record).is_none() {
            return Err("an event is no record of the kinds that it declares".into());
        }
        let (header, _) = Header::read_from_prefix(record).map_err(|_| "an event is too short")?;
        if header.container == ContainerKey::HOST {
            batch.push_event(None, record);
            return Ok(());
        }
        let (len, container) =
            self.containers.get(&header.container).ok_or("the container of an event is missing")?;
        batch.push_event(Some((container, *len)), record);
        Ok(())
    }

    fn listed(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), String> {
        if !self.ready {
            let rest = self.list_capacity.checked_sub(line.len());
            self.list_capacity = rest.ok_or("the list is too long")?;
        }
        let listed = Listed::read(line).map_err(|error| error.to_string())?;
        batch.referenced_bytes += line.len();
        batch.items.push(Item::Container(Box::new(listed)));
        Ok(())
    }
}

/// A line of the log; none for an empty one.
fn log_line(line: Line<'_>) -> Option<Notice> {
    let line = match line {
        Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
        Line::Cut(line) => format!("{}…", String::from_utf8_lossy(line)),
    };
    (!line.is_empty()).then_some(Notice::Log(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frames::{self, Compressor, FrameWriter, Type, frame},
        testing::Load,
    };

    fn decoder(kinds: &[&str]) -> Decoder {
        Decoder::new("n".into(), Kinds::by_name(kinds).unwrap())
    }

    fn compressed(frames: &[u8]) -> Vec<u8> {
        Compressor::new().unwrap().write(frames, <[u8]>::to_vec).unwrap()
    }

    /// A run with one event of a container, and one of a host process.
    fn run(declared: &[&str]) -> Vec<u8> {
        let kinds = Kinds::by_name(declared).unwrap();
        let (mut writer, mut out) = (FrameWriter::default(), Vec::new());
        frames::hello(&kinds, "other", &mut out);
        let container = Container::unknown(crate::model::Unknown::Late);
        let record = &Load::ONE.records(declared[0], 1)[0];
        for container in [Some(&container), None] {
            let key = ContainerKey::new(1, 1);
            writer.event(7, key, record, container, &mut ContainerTexts::default(), &mut out).unwrap();
        }
        out
    }

    fn stdout(decoder: &mut Decoder, bytes: &[u8]) -> Decoded {
        decoder.stdout(&mut &bytes[..])
    }

    #[test]
    fn stream_is_decoded_in_batches_however_little_it_was_compressed() {
        let event = frame(Type::Event, &Load::ONE.records("open", 1)[0]);
        let stream = compressed(&[run(&["open"]), event.repeat(20_000)].concat());
        let (mut decoder, mut rest) = (decoder(&["open"]), &stream[..]);
        let (mut batches, mut shown) = (0, 0);
        loop {
            let decoded = decoder.stdout(&mut rest);
            assert!(decoded.size() < 4 * BATCH_MAX, "{} bytes", decoded.size());
            (batches, shown) = (batches + 1, shown + decoded.batch.shown());
            if !decoded.has_more {
                break;
            }
        }
        assert!(rest.is_empty() && shown == 20_002 && batches > 5, "{shown} events in {batches} batches");
    }

    #[test]
    fn events_come_with_their_container_and_schema() {
        let mut decoder = decoder(&["open"]);
        let Decoded { batch, notices, has_more } = stdout(&mut decoder, &compressed(&run(&["open"])));
        assert!(!has_more);
        assert_eq!((notices, batch.shown()), (vec![], 2));
        assert!(Arc::ptr_eq(batch.kinds.as_ref().unwrap(), &decoder.kinds), "the same schema");
        assert!(matches!(&batch.items[0], Item::Events { container: Some(_), .. }));
        assert!(matches!(&batch.items[1], Item::Events { container: None, .. }));
        assert_eq!(batch.record(1).len(), Load::ONE.records("open", 1)[0].len());
    }

    #[test]
    fn kinds_that_were_not_selected_are_shown_by_their_own_schema() {
        let Decoded { batch, .. } = stdout(&mut decoder(&["open"]), &compressed(&run(&["exec"])));
        assert_eq!((batch.shown(), batch.kinds.unwrap().names()), (2, "exec".to_owned()));
    }

    #[test]
    fn hostile_frames_are_left_out_and_named() {
        let reasons = |frames: &[u8]| {
            let decoded = stdout(&mut decoder(&["open"]), &compressed(frames));
            assert_eq!(decoded.batch.shown(), 0);
            decoded.notices.into_iter().map(|notice| format!("{notice:?}")).collect::<Vec<_>>().join("; ")
        };
        let record = &Load::ONE.records("open", 1)[0];
        assert!(reasons(&frame(Type::Event, record)).contains("before the schema"));
        let mut hello = Vec::new();
        frames::hello(&Kinds::by_name(&["open"]).unwrap(), "n", &mut hello);
        let after_hello = |frame: Vec<u8>| reasons(&[&hello[..], &frame].concat());
        assert!(after_hello(frame(Type::Event, record)).contains("container of an event is missing"));
        assert!(after_hello(frame(Type::Event, &record[..70])).contains("no record"));
        assert!(after_hello(frame(Type::Listed, b"{}")).contains("missing field"));
        assert!(after_hello(frame(Type::Container, &[0; 9])).contains("Invalid"));
        assert!(after_hello(frame(Type::Summary, b"{}")).contains("Broken"));
    }

    #[test]
    fn tracer_that_sends_no_frames_is_incompatible() {
        let decoded = stdout(&mut decoder(&["open"]), b"{\"timestamp\":");
        assert!(matches!(&decoded.notices[..], [Notice::Incompatible(_)]), "{decoded:?}");
    }

    #[test]
    fn standard_error_is_the_log() {
        let mut decoder = decoder(&[]);
        let log = |text: &str| Notice::Log(text.to_owned());
        let decoded = decoder.stderr(b"tracer: ready\n\n WARN x\nbegun");
        assert_eq!(decoded.notices, [log("tracer: ready"), log(" WARN x")]);
        assert_eq!(decoder.finish_run().notices, [log("begun…")]);
    }

    #[test]
    fn list_is_bounded_until_its_node_is_ready() {
        let mut decoder = decoder(&[]);
        decoder.content.list_capacity = 3;
        let mut compressor = Compressor::new().unwrap();
        let mut reason = |frame: &[u8]| {
            let stream = compressor.write(frame, <[u8]>::to_vec).unwrap();
            match &stdout(&mut decoder, &stream).notices[..] {
                [Notice::Invalid(reason)] => reason.clone(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(reason(&frame(Type::Listed, b"long")), "the list is too long");
        reason(&frame(Type::Ready, &[]));
        assert_ne!(reason(&frame(Type::Listed, b"long")), "the list is too long");
    }
}
