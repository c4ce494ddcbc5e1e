//! Reading a stream of frames that something untrusted has written.

use std::io;

use tracer_common::container::ContainerKey;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use crate::model::Matches;

use super::{HEAD, Hello, LostFrame, MAGIC, Summary, Type, VERSION};

/// The base-two logarithm of the bytes that the decompressor keeps at the most.
const WINDOW_LOG_MAX: u32 = 20;
/// Bytes that are decompressed at once.
const CHUNK: usize = 64 << 10;

/// A frame. What it borrows lives until the next one is read.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// What the sender is.
    Hello(Box<Hello>),
    /// What is known of a container: JSON.
    Container(ContainerKey, &'a [u8]),
    /// No event of it follows.
    Forget(ContainerKey),
    /// A record.
    Event(&'a [u8]),
    /// Events that were lost on the node.
    Lost(LostFrame),
    /// All is attached.
    Ready,
    /// The answer to a heartbeat.
    Alive,
    /// The counters of the closing line.
    Summary(Summary),
    /// A container of `list-containers`: JSON.
    Listed(&'a [u8]),
    /// What the selection matches.
    Matches(Matches),
}

/// Why a stream cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// It is no stream of frames.
    #[error("its tracer sends no frames")]
    NotFrames,
    /// It has another version.
    #[error("its tracer sends frames of version {theirs}, not {VERSION}")]
    Version {
        /// The stream's version.
        theirs: u8,
    },
    /// It cannot be decompressed.
    #[error("its stream is damaged: {0}")]
    Damaged(#[from] io::Error),
    /// A frame is longer than any of its type.
    #[error("its frame of type {0} has {1} bytes")]
    TooLong(u8, usize),
    /// A frame's body makes no sense.
    #[error("its frame of type {0} is malformed: {1}")]
    Malformed(u8, String),
}

impl From<(Type, serde_json::Error)> for FrameError {
    fn from((frame_type, error): (Type, serde_json::Error)) -> Self {
        Self::Malformed(frame_type as u8, error.to_string())
    }
}

/// Decompresses a stream and cuts it into frames.
pub(crate) struct FrameReader {
    /// Bytes of the preamble that have been read.
    preamble: usize,
    decoder: Decoder<'static>,
    chunk: Box<[u8]>,
    /// Decompressed, not yet handed over: the beginning of a frame.
    begun: Vec<u8>,
}

impl FrameReader {
    pub(crate) fn new() -> Result<Self, FrameError> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Self { preamble: 0, decoder, chunk: vec![0; CHUNK].into(), begun: Vec::new() })
    }

    /// [`Self::feed_chunk`] until `bytes` are read.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let mut bytes = bytes;
        while self.feed_chunk(&mut bytes, &mut each)? {}
        Ok(())
    }

    /// Hands over each frame that ends in the next decompressed chunk, and keeps what begins there: a few bytes may decompress to
    /// a thousand times as many. Takes what it has read off `bytes`, and returns whether there is more. After an error nothing
    /// more is to be read.
    pub(crate) fn feed_chunk(
        &mut self,
        bytes: &mut &[u8],
        each: &mut impl FnMut(Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<bool, FrameError> {
        *bytes = self.skip_preamble(bytes)?;
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around(&mut self.chunk[..]);
        self.decoder.run(&mut input, &mut output)?;
        let (read, written) = (input.pos(), output.pos());
        *bytes = &bytes[read..];
        hand_over(&mut self.begun, &self.chunk[..written], each)?;
        // A full chunk may not be all that the input decompresses to.
        Ok(!bytes.is_empty() || written == CHUNK)
    }

    /// Whether the stream ends between two frames.
    pub(crate) fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }

    fn skip_preamble<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], FrameError> {
        let mut bytes = bytes;
        while self.preamble <= MAGIC.len() {
            let Some((byte, rest)) = bytes.split_first() else { break };
            match MAGIC.get(self.preamble) {
                Some(expected) if byte != expected => return Err(FrameError::NotFrames),
                None if *byte != VERSION => return Err(FrameError::Version { theirs: *byte }),
                _ => {}
            }
            self.preamble += 1;
            bytes = rest;
        }
        Ok(bytes)
    }
}

/// Hands over the frames in `begun` and `bytes` together, and leaves the beginning of the next in `begun`.
fn hand_over(
    begun: &mut Vec<u8>,
    mut bytes: &[u8],
    each: &mut impl FnMut(Frame<'_>) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    // A frame that began earlier is completed first.
    while !begun.is_empty() && !bytes.is_empty() {
        let wanted = match Head::of(begun)? {
            Some(head) => HEAD + head.len,
            None => HEAD,
        };
        let (more, rest) = bytes.split_at(bytes.len().min(wanted - begun.len()));
        begun.extend_from_slice(more);
        bytes = rest;
        if let Some(head) = Head::of(begun)?
            && begun.len() == HEAD + head.len
        {
            head.read(&begun[HEAD..], each)?;
            begun.clear();
        }
    }
    while let Some(head) = Head::of(bytes)? {
        let Some((body, rest)) = bytes[HEAD..].split_at_checked(head.len) else { break };
        head.read(body, each)?;
        bytes = rest;
    }
    begun.extend_from_slice(bytes);
    Ok(())
}

struct Head {
    number: u8,
    len: usize,
}

impl Head {
    /// The head that `bytes` begin with; `None` if they are too few.
    fn of(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let [low, middle, high, number] = *head;
        let len = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        let head = Self { number, len };
        if len > head.len_max() { Err(FrameError::TooLong(number, len)) } else { Ok(Some(head)) }
    }

    fn frame_type(&self) -> Option<Type> {
        use Type::{Alive, Container, Event, Forget, Hello, Listed, Lost, Matches, Ready, Summary};
        [Hello, Container, Forget, Event, Lost, Ready, Alive, Summary, Listed, Matches]
            .into_iter()
            .find(|known| *known as u8 == self.number)
    }

    /// The most bytes that a body of the type has.
    fn len_max(&self) -> usize {
        match self.frame_type() {
            Some(Type::Hello | Type::Container | Type::Event) => 512 << 10,
            Some(Type::Listed) => 1 << 20,
            Some(Type::Forget | Type::Ready | Type::Alive) => 64,
            Some(Type::Lost | Type::Summary | Type::Matches) | None => 64 << 10,
        }
    }

    fn read(
        &self,
        body: &[u8],
        each: &mut impl FnMut(Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let Some(frame_type) = self.frame_type() else { return Ok(()) };
        let too_short = || FrameError::Malformed(self.number, "it is too short".into());
        each(match frame_type {
            Type::Hello => Frame::Hello(serde_json::from_slice(body).map_err(|error| (frame_type, error))?),
            Type::Container => {
                let (key, json) = body.split_first_chunk().ok_or_else(too_short)?;
                Frame::Container(ContainerKey(u64::from_le_bytes(*key)), json)
            }
            Type::Forget => {
                let (key, _) = body.split_first_chunk().ok_or_else(too_short)?;
                Frame::Forget(ContainerKey(u64::from_le_bytes(*key)))
            }
            Type::Event => Frame::Event(body),
            Type::Lost => Frame::Lost(serde_json::from_slice(body).map_err(|error| (frame_type, error))?),
            Type::Ready => Frame::Ready,
            Type::Alive => Frame::Alive,
            Type::Summary => {
                Frame::Summary(serde_json::from_slice(body).map_err(|error| (frame_type, error))?)
            }
            Type::Listed => Frame::Listed(body),
            Type::Matches => {
                Frame::Matches(serde_json::from_slice(body).map_err(|error| (frame_type, error))?)
            }
        })
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("begun", &self.begun.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Compressor, frame},
        *,
    };

    fn compressed(frames: &[u8]) -> Vec<u8> {
        Compressor::new().unwrap().write(frames, <[u8]>::to_vec).unwrap()
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, FrameError> {
        let (mut reader, mut frames) = (FrameReader::new()?, Vec::new());
        for piece in pieces {
            reader.feed(piece, |frame| {
                frames.push(format!("{frame:?}"));
                Ok(())
            })?;
        }
        Ok(frames)
    }

    #[test]
    fn older_tracer_and_newer_protocol_are_named() {
        assert!(matches!(read(&[b"{\"timestamp\":"]), Err(FrameError::NotFrames)));
        let mut newer = compressed(&[]);
        newer[MAGIC.len()] = 9;
        let error = read(&[&newer]).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
    }

    #[test]
    fn frames_of_unknown_types_are_skipped() {
        let mut frames = frame(Type::Ready, &[]);
        frames.extend([3, 0, 0, 200, 1, 2, 3]);
        frames.extend(frame(Type::Alive, &[]));
        assert_eq!(read(&[&compressed(&frames)]).unwrap(), ["Ready", "Alive"]);
    }

    #[test]
    fn frame_that_is_longer_than_its_type_is_refused_before_it_is_kept() {
        for frame_type in [Type::Hello, Type::Event, Type::Lost, Type::Ready, Type::Listed] {
            let head = ((frame_type as u32) << 24 | 0xff_ffff).to_le_bytes();
            assert!(matches!(read(&[&compressed(&head)]), Err(FrameError::TooLong(..))), "{frame_type:?}");
        }
    }

    #[test]
    fn large_window_is_refused() {
        let mut stream = compressed(&[])[..=MAGIC.len()].to_vec();
        // A frame header of RFC 8878, section 3.1.1.1, with a window of 2^30 bytes.
        stream.extend([0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00]);
        assert!(matches!(read(&[&stream]), Err(FrameError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_does_not_matter(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(0..5000_usize, 0..8),
        ) {
            let frames: Vec<u8> = bodies.iter().flat_map(|body| frame(Type::Event, body)).collect();
            let stream = compressed(&frames);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([stream.len()]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let pieces: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &stream[start..end]).collect();
            let expected: Vec<String> = bodies.iter().map(|body| format!("{:?}", Frame::Event(body))).collect();
            prop_assert_eq!(read(&pieces).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, frames: Vec<u8>) {
            let _ = read(&[&compressed(&[]), &bytes]);
            let _ = read(&[&compressed(&frames)]);
        }
    }
}
