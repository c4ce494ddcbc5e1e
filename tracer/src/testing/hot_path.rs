//! All that user space does for an event but reading and writing it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::records::{All, router};
pub use super::records::{Load, Selected};
use crate::{
    kinds::{Event, Kinds},
    pipeline::{Router, Stop, Tally},
};

/// Records, and what handles them.
pub struct HotPath {
    kinds: Arc<Kinds>,
    records: Vec<Vec<u8>>,
    router: Router<All>,
    tally: Arc<Tally>,
    _stopped: oneshot::Receiver<Stop>,
}

impl HotPath {
    /// `count` records of a kind, which are shown in the format `output`, or of containers that are not selected.
    ///
    /// # Panics
    /// If there is no such kind or format.
    #[must_use]
    pub fn new(kind: &str, load: Load, count: u32, output: &str, selected: Selected) -> Self {
        Self::of_records(kind, load.records(kind, count), output, selected)
    }

    /// `count` opens of this path, which are shown.
    ///
    /// # Panics
    /// If there is no such format.
    #[must_use]
    pub fn of_opens(path: &[u8], count: u32, output: &str) -> Self {
        let records = (0..count).map(|number| Load::ONE.open(number, path)).collect();
        Self::of_records("open", records, output, Selected::Yes)
    }

    fn of_records(kind: &str, records: Vec<Vec<u8>>, output: &str, selected: Selected) -> Self {
        let kinds = Kinds::by_name(&[kind]).expect("the kind is declared");
        let (router, tally, stopped) = router(All(selected), &kinds, output, |text| (text.len(), Ok(())));
        Self { kinds, records, router, tally, _stopped: stopped }
    }

    /// Decodes all of them; returns how many are records.
    #[must_use]
    pub fn decode(&self) -> usize {
        self.records.iter().filter(|record| Event::decode(&self.kinds, record).is_some()).count()
    }

    /// Handles all of them.
    pub fn handle(&mut self) {
        for record in &self.records {
            self.router.handle(record);
        }
        self.router.sink.flush();
    }

    /// How many were shown.
    #[must_use]
    pub fn emitted(&self) -> u64 {
        self.tally.emitted()
    }
}
