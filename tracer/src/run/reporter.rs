//! What a run reports of itself: lines on standard error, or frames between those of the events.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    bpf::EventFilter,
    frames::{Summary, Type, frame},
    model::Matches,
    output::Losses,
    registry::Registry,
    run::lease,
    sys::stderr::status,
};

/// How long changes of containers are collected before it is reported what the selection matches now.
const MATCHES_INTERVAL: Duration = Duration::from_secs(1);

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
    pub(crate) fn ready(&self, selected: &Selected) {
        match self {
            Self::Lines => status(&format!("ready ({})", selected.matches.text(&selected.options, PLACE))),
            Self::Frames(_) => {
                self.send_matches(&selected.matches);
                self.send(Type::Ready, &[]);
            }
        }
    }

    /// The lease was renewed.
    pub(crate) fn alive(&self) {
        match self {
            Self::Lines => status(lease::ALIVE),
            Self::Frames(_) => self.send(Type::Alive, &[]),
        }
    }

    fn matches_changed(&self, before: &Matches, now: &Matches, options: &str) {
        match self {
            Self::Lines => now.change(before, options).iter().for_each(|change| status(change)),
            Self::Frames(_) => self.send_matches(now),
        }
    }

    fn send_matches(&self, matches: &Matches) {
        // Numbers and strings: serializing them cannot fail.
        self.send(Type::Matches, &serde_json::to_vec(matches).unwrap_or_default());
    }

    fn send(&self, frame_type: Type, body: &[u8]) {
        if let Self::Frames(frames) = self {
            // What writes the stream has gone if the run is at its end.
            let _ = frames.send(frame(frame_type, body));
        }
    }
}

/// Where a run's containers are, in messages.
const PLACE: &str = "this node";

/// What is selected on this node.
pub(crate) struct Selected {
    registry: Arc<Registry>,
    /// The options that select containers.
    options: String,
    /// The selected process ids.
    pids: Vec<u32>,
    /// What they match, as reported last.
    matches: Matches,
}

impl Selected {
    pub(crate) fn new(registry: &Arc<Registry>, options: String, filter: &EventFilter) -> Self {
        let pids = filter.pids.wanted().to_vec();
        Self { registry: Arc::clone(registry), options, pids, matches: Matches::default() }
    }

    /// Looks what is matched now.
    pub(crate) fn update(&mut self) {
        let exists = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        let processes = self.pids.iter().filter(exists).count();
        let processes = (!self.pids.is_empty()).then(|| u64::try_from(processes).unwrap_or(u64::MAX));
        self.matches = self.registry.matches();
        self.matches.processes = processes;
    }

    /// How many containers may be selected: too little is known of them.
    pub(crate) const fn undecided(&self) -> u64 {
        self.matches.undecided
    }

    /// Describes that nothing is matched, if that is so.
    pub(crate) fn nothing(&self) -> Option<String> {
        self.matches.nothing(&self.options, PLACE)
    }

    /// Reports changes, forever.
    pub(crate) async fn report_changes(&mut self, reporter: &Reporter) {
        let mut changes = self.registry.changes();
        loop {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(MATCHES_INTERVAL).await;
            changes.mark_unchanged();
            let before = self.matches.clone();
            self.update();
            if self.matches != before {
                reporter.matches_changed(&before, &self.matches, &self.options);
            }
        }
    }
}

/// The closing line.
pub(crate) fn closing_line(Summary { seen, emitted, filtered, lost }: Summary, losses: &Losses) -> String {
    format!("seen {seen} emitted {emitted} filtered {filtered} lost {lost} {losses}").trim_end().to_owned()
}

/// The frame that stands for it.
pub(crate) fn closing_frame(summary: Summary) -> Vec<u8> {
    // Numbers alone: serializing them cannot fail.
    frame(Type::Summary, &serde_json::to_vec(&summary).unwrap_or_default())
}
