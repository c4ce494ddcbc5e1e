//! Accounting of the events of all nodes: seen = emitted + filtered + lost.

use std::{ops::AddAssign, sync::atomic::Ordering};

use crate::{frames::Summary, output::Losses, pipeline::WriteCounters};

/// The counters of one run of a node's `tracer`.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Events that were received, including those that could not be decoded.
    pub(super) received: u64,
    /// Events that the node reported as lost.
    pub(super) reported_lost: u64,
    /// The same by reason.
    pub(super) losses: Losses,
    pub(super) summary: Option<Summary>,
    /// Whether it has been ready.
    pub(super) ready: bool,
}

/// The totals of all runs of one node, or of all nodes. Wider than the numbers that nodes send, which are not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    received: u128,
    /// Received, but could not be decoded.
    pub(super) malformed: u128,
    /// Received, but dropped since the writer was blocked.
    pub(super) dropped: u128,
    filtered: u128,
    lost: u128,
    losses: Losses,
    /// Runs without a summary.
    pub(super) incomplete_runs: u128,
    /// Events that were received from those.
    pub(super) received_incomplete: u128,
}

impl Account {
    /// Adds a run that has ended.
    pub(super) fn add(&mut self, run: &Run) {
        let received = u128::from(run.received);
        self.received += received;
        self.losses.merge(&run.losses);
        if let Some(Summary { emitted, filtered, lost, .. }) = run.summary {
            self.filtered += u128::from(filtered);
            // Emitted on the node but not received: lost.
            let missing = u128::from(emitted.saturating_sub(run.received));
            self.lost += u128::from(lost) + missing;
            self.losses.add("connection", missing);
            self.losses.add("unreported", u128::from(lost).saturating_sub(run.losses.total()));
        } else {
            self.lost += u128::from(run.reported_lost);
            // A run that was never ready has seen nothing.
            if run.ready || run.received > 0 {
                self.incomplete_runs += 1;
                self.received_incomplete += received;
            }
        }
    }

    /// The sum, with what the writer did with the received events.
    pub(super) fn sum(&self, written: &WriteCounters) -> Sum {
        let seen = self.received + self.filtered + self.lost;
        let emitted = u128::from(written.emitted.load(Ordering::Relaxed));
        let filtered = self.filtered + u128::from(written.filtered.load(Ordering::Relaxed));
        // The rest, including events that the writer did not get to.
        let lost = seen.saturating_sub(emitted + filtered);
        let mut losses = self.losses.clone();
        losses.add("malformed", self.malformed);
        losses.add("output", lost.saturating_sub(losses.total()));
        Sum { seen, emitted, filtered, lost, losses }
    }
}

impl AddAssign<&Self> for Account {
    fn add_assign(&mut self, other: &Self) {
        self.received += other.received;
        self.malformed += other.malformed;
        self.dropped += other.dropped;
        self.filtered += other.filtered;
        self.lost += other.lost;
        self.losses.merge(&other.losses);
        self.incomplete_runs += other.incomplete_runs;
        self.received_incomplete += other.received_incomplete;
    }
}

/// The totals of the whole session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) seen: u128,
    pub(super) emitted: u128,
    pub(super) filtered: u128,
    pub(super) lost: u128,
    pub(super) losses: Losses,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(emitted: u64, filtered: u64) -> WriteCounters {
        WriteCounters { emitted: emitted.into(), filtered: filtered.into(), ..WriteCounters::default() }
    }

    fn losses(reason: &str, count: u128) -> Losses {
        let mut losses = Losses::default();
        losses.add(reason, count);
        losses
    }

    #[test]
    fn events_that_were_emitted_but_not_received_are_lost() {
        let summary = Some(Summary { seen: 0, emitted: 10, filtered: 5, lost: 1 });
        let mut account = Account::default();
        account.add(&Run {
            received: 7,
            reported_lost: 1,
            losses: losses("buffer-full", 1),
            summary,
            ready: true,
        });
        let written = written(6, 1);
        let sum = account.sum(&written);
        assert_eq!((sum.seen, sum.emitted, sum.filtered, sum.lost), (16, 6, 6, 4));
        assert!(sum.losses.to_string().starts_with("(buffer-full 1: "), "{}", sum.losses);
        assert!(sum.losses.to_string().contains("; connection 3: "), "{}", sum.losses);
        assert_eq!(account.incomplete_runs, 0);
    }

    #[test]
    fn without_a_summary_the_received_events_count() {
        let mut account = Account::default();
        let losses = losses("unattributed", 2);
        account.add(&Run {
            received: 7,
            reported_lost: 2,
            losses: losses.clone(),
            summary: None,
            ready: true,
        });
        account.add(&Run::default());
        let written = written(7, 0);
        assert_eq!(account.sum(&written), Sum { seen: 9, emitted: 7, filtered: 0, lost: 2, losses });
        assert_eq!((account.incomplete_runs, account.received_incomplete), (1, 7));
    }

    proptest! {
        #[test]
        fn totals_add_up_whatever_nodes_report(runs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<(u64, u64, u64)>>()), 0..5), parts in any::<(u8, u8)>()) {
            let (mut account, mut all_received) = (Account::default(), 0_u64);
            for (received, reported_lost, summary) in runs {
                let received = received >> 8;
                all_received += received;
                let summary = summary.map(|(emitted, filtered, lost)| Summary { seen: 0, emitted, filtered, lost });
                account.add(&Run { received, reported_lost, summary, ready: true, ..Run::default() });
            }
            let emitted = all_received / (u64::from(parts.0) + 2);
            let filtered = all_received / (u64::from(parts.1) + 2);
            let sum = account.sum(&written(emitted, filtered));
            prop_assert_eq!(sum.seen, sum.emitted + sum.filtered + sum.lost);
            prop_assert_eq!(sum.emitted, u128::from(emitted));
        }
    }
}
