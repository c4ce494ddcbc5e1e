//! Frames of a node, for tests of the client: each piece can be decompressed by itself.

use std::io::{self, Write as _};

use tracer_common::container::ContainerKey;
use zstd::{stream::write::Encoder, zstd_safe::CParameter};

use crate::{
    frames::{self, FrameWriter, MAGIC, Type, VERSION, frame},
    kinds::Kinds,
    model::{Container, Pod, Unknown},
    output::ContainerTexts,
    testing::Load,
};

/// A piece of a stream.
#[derive(Debug, Default)]
pub struct Stream {
    plain: Vec<u8>,
    frames: Vec<u8>,
    writer: FrameWriter,
    texts: ContainerTexts,
}

impl Stream {
    /// Begins a stream of kind `open`, from a node with this name.
    pub fn hello(&mut self, node: &str) {
        self.plain = [&MAGIC[..], &[VERSION]].concat();
        let kinds = Kinds::by_name(&["open"]).unwrap_or_default();
        frames::hello(&kinds, node, &mut self.frames);
    }

    /// An open of this path, in the pod `ns/web`.
    pub fn open(&mut self, path: &[u8]) -> io::Result<()> {
        let container = Container {
            id: "c".into(),
            runtime: "containerd".into(),
            image: Some("i".into()),
            pod: Some(Pod {
                namespace: "ns".into(),
                name: "web".into(),
                pod_uid: Some("u".into()),
                container: Some("app".into()),
                labels: Some([].into()),
            }),
            pod_known: true,
            ..Container::unknown(Unknown::Late)
        };
        let (key, record) = (ContainerKey::new(1, 1), Load::ONE.open(1, path));
        let Self { frames, writer, texts, .. } = self;
        writer.event(1_795_212_901_123_456_789, key, &record, Some(&container), texts, frames)
    }

    /// All is attached.
    pub fn ready(&mut self) {
        self.frames.extend(frame(Type::Ready, &[]));
    }

    /// The answer to a heartbeat.
    pub fn alive(&mut self) {
        self.frames.extend(frame(Type::Alive, &[]));
    }

    /// The end, with these counters in JSON.
    pub fn summary(&mut self, json: &str) {
        self.frames.extend(frame(Type::Summary, json.as_bytes()));
    }

    /// A container that is listed, in JSON.
    pub fn listed(&mut self, json: &str) {
        self.frames.extend(frame(Type::Listed, json.as_bytes()));
    }

    /// A frame of any type, of at most 16 MiB.
    pub fn raw(&mut self, frame_type: u8, body: &[u8]) {
        let head = u32::from(frame_type) << 24 | u32::try_from(body.len()).unwrap_or(0);
        self.frames.extend(head.to_le_bytes());
        self.frames.extend(body);
    }

    /// The bytes to send.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        const WINDOW_LOG: u32 = 17;
        let mut encoder = Encoder::new(self.plain, 1)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.write_all(&self.frames)?;
        encoder.finish()
    }
}
