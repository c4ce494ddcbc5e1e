//! Writing a stream of frames.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Write as _},
};

use serde::Serialize;
use tracer_common::{container::ContainerKey, kinds::Header};
use zstd::stream::{raw::CParameter, write::Encoder};

use super::{HEAD, Hello, LostFrame, MAGIC, Type, VERSION};
use crate::{
    kinds::Kinds,
    model::{Container, Pod},
    output::{ContainerTexts, Lost},
};

/// zstd's fastest regular level: events are many, and the node's CPU is not ours.
const LEVEL: i32 = 1;
/// The base-two logarithm of the bytes that a reader has to keep.
pub(super) const WINDOW_LOG: u32 = 17;

/// Writes frames of events.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    /// Containers that were sent, with the hash of what was.
    sent: HashMap<ContainerKey, u64>,
    json: Vec<u8>,
}

#[derive(Serialize)]
struct ContainerBody<'a> {
    k8s: Option<&'a Pod>,
    container: &'a Container,
}

impl FrameWriter {
    /// Appends an event, after its container if that was not sent yet, or is known better by now. `texts` are those of the
    /// container in rows: new ones mean that what is known of it may have changed.
    pub(crate) fn event(
        &mut self,
        timestamp: i128,
        key: ContainerKey,
        record: &[u8],
        container: Option<&Container>,
        texts: &mut ContainerTexts,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        /// Where a record has its time and its container.
        const TIMESTAMP: usize = std::mem::offset_of!(Header, timestamp);
        const CONTAINER: usize = std::mem::offset_of!(Header, container);
        if let Some(container) = container {
            texts.once(|| self.container(key, container, out))?;
        }
        let start = head(Type::Event, record.len(), out)?;
        out.extend_from_slice(record);
        let timestamp = u64::try_from(timestamp).unwrap_or(0);
        out[start + TIMESTAMP..][..size_of::<u64>()].copy_from_slice(&timestamp.to_le_bytes());
        let key = if container.is_some() { key } else { ContainerKey::HOST };
        out[start + CONTAINER..][..size_of::<u64>()].copy_from_slice(&key.0.to_le_bytes());
        Ok(())
    }

    fn container(&mut self, key: ContainerKey, container: &Container, out: &mut Vec<u8>) -> io::Result<()> {
        self.json.clear();
        serde_json::to_writer(&mut self.json, &ContainerBody { k8s: container.pod.as_ref(), container })?;
        let mut hasher = DefaultHasher::new();
        self.json.hash(&mut hasher);
        let hash = hasher.finish();
        if self.sent.insert(key, hash) == Some(hash) {
            return Ok(());
        }
        head(Type::Container, size_of::<u64>() + self.json.len(), out)?;
        out.extend_from_slice(&key.0.to_le_bytes());
        out.extend_from_slice(&self.json);
        Ok(())
    }

    /// No event of this container follows.
    pub(crate) fn forget(&mut self, key: ContainerKey, out: &mut Vec<u8>) {
        if self.sent.remove(&key).is_some() && head(Type::Forget, size_of::<u64>(), out).is_ok() {
            out.extend_from_slice(&key.0.to_le_bytes());
        }
    }
}

/// Appends the first frame.
pub(crate) fn hello(kinds: &Kinds, node: &str, out: &mut Vec<u8>) {
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        architecture: std::env::consts::ARCH.into(),
        node: node.into(),
        kinds: kinds.iter().map(|kind| kind.schema.clone()).collect(),
    };
    // Strings and numbers in JSON; writing to a vector cannot fail.
    let _ = json_frame(Type::Hello, &hello, out);
}

/// Appends a loss.
pub(crate) fn lost(timestamp: i128, lost: &Lost, out: &mut Vec<u8>) -> io::Result<()> {
    let lost = LostFrame {
        timestamp: i64::try_from(timestamp).unwrap_or(0),
        count: lost.count,
        reason: lost.reason.clone().into_owned(),
        hook: lost.hook.clone().into_owned(),
    };
    json_frame(Type::Lost, &lost, out)
}

/// A frame with this body; without one if it is too long for a frame.
pub(crate) fn frame(frame_type: Type, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    if head(frame_type, body.len(), &mut out).is_ok() {
        out.extend_from_slice(body);
    }
    out
}

fn json_frame(frame_type: Type, body: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    let body = serde_json::to_vec(body)?;
    head(frame_type, body.len(), out)?;
    out.extend_from_slice(&body);
    Ok(())
}

/// Appends the head of a frame with a body of so many bytes. Returns where the body begins.
fn head(frame_type: Type, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    const LEN_MAX: u32 = (1 << 24) - 1;
    let len = u32::try_from(len).ok().filter(|len| *len <= LEN_MAX);
    let len = len.ok_or_else(|| io::Error::other("a frame is too long"))?;
    out.extend_from_slice(&((frame_type as u32) << 24 | len).to_le_bytes());
    Ok(out.len())
}

/// Compresses a stream of frames.
pub(crate) struct Compressor {
    encoder: Encoder<'static, Vec<u8>>,
}

impl Compressor {
    pub(crate) fn new() -> io::Result<Self> {
        // The preamble is not compressed.
        let preamble = [&MAGIC[..], &[VERSION]].concat();
        let mut encoder = Encoder::new(preamble, LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Self { encoder })
    }

    /// Compresses frames; `write` takes all that a reader needs for them.
    pub(crate) fn write<T>(&mut self, frames: &[u8], write: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        self.encoder.write_all(frames)?;
        self.encoder.flush()?;
        let result = write(self.encoder.get_ref());
        self.encoder.get_mut().clear();
        Ok(result)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Unknown, testing::Load};

    /// The types of the frames that events of these containers make, each with the texts at that index.
    fn types(containers: &[(&Container, usize)]) -> Vec<u8> {
        let (mut writer, mut texts) = (FrameWriter::default(), [(); 2].map(|()| ContainerTexts::default()));
        let record = &Load::ONE.records("open", 1)[0];
        let mut types = Vec::new();
        for (container, index) in containers {
            let mut out = Vec::new();
            let key = ContainerKey::new(1, 1);
            writer.event(7, key, record, Some(container), &mut texts[*index], &mut out).unwrap();
            let mut rest = &out[..];
            while let Some((head, body)) = rest.split_first_chunk::<HEAD>() {
                let head = u32::from_le_bytes(*head);
                types.push(u8::try_from(head >> 24).unwrap());
                rest = &body[(head & 0xff_ffff) as usize..];
            }
        }
        types
    }

    #[test]
    fn container_is_sent_once_and_again_when_more_is_known() {
        const CONTAINER: u8 = Type::Container as u8;
        const EVENT: u8 = Type::Event as u8;
        let container = Container::unknown(Unknown::Late);
        let named = Container { id: "c".into(), ..container.clone() };
        assert_eq!(types(&[(&container, 0); 3]), [CONTAINER, EVENT, EVENT, EVENT]);
        assert_eq!(
            types(&[(&container, 0), (&named, 1), (&named, 1)]),
            [CONTAINER, EVENT, CONTAINER, EVENT, EVENT]
        );
        // Nothing new, although the texts are.
        assert_eq!(types(&[(&container, 0), (&container, 1)]), [CONTAINER, EVENT, EVENT]);
    }
}
