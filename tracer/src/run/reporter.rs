//! What a run reports of itself: lines on standard error, or frames between those of the events.

use tokio::sync::mpsc;

use crate::{
    frames::{Summary, Type, frame},
    run::lease,
    sys::stderr::status,
};

/// Where a run's reports go.
#[derive(Clone, Debug)]
pub(crate) enum Reporter {
    /// Lines on standard error.
    Lines,
    /// Frames, to what writes the stream.
    Frames(mpsc::UnboundedSender<Vec<u8>>),
}

impl Reporter {
    /// Everything is attached.
    pub(crate) fn ready(&self) {
        self.report(Type::Ready, "ready");
    }

    /// The lease was renewed.
    pub(crate) fn alive(&self) {
        self.report(Type::Alive, lease::ALIVE);
    }

    fn report(&self, frame_type: Type, line: &str) {
        match self {
            Self::Lines => status(line),
            // What writes the stream has gone if the run is at its end.
            Self::Frames(frames) => drop(frames.send(frame(frame_type, &[]))),
        }
    }
}

/// The closing line.
pub(crate) fn closing_line(Summary { seen, emitted, filtered, lost }: Summary) -> String {
    format!("seen {seen} emitted {emitted} filtered {filtered} lost {lost}")
}

/// The frame that stands for it.
pub(crate) fn closing_frame(summary: Summary) -> Vec<u8> {
    // Numbers alone: serializing them cannot fail.
    frame(Type::Summary, &serde_json::to_vec(&summary).unwrap_or_default())
}
