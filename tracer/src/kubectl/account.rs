//! What is known of the events of all nodes: how many each saw, and what became of them on the way.

use std::{ops::AddAssign, sync::atomic::Ordering};

use crate::pipeline::Written;

/// The numbers of a node's closing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    emitted: u64,
    filtered: u64,
    lost: u64,
}

impl Closing {
    /// From what follows `tracer: `, if it is that line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = |name: &str| {
            let named = words.next() == Some(name);
            words.next().filter(|_| named)?.parse::<u64>().ok()
        };
        let (_seen, emitted, filtered, lost) =
            (number("seen")?, number("emitted")?, number("filtered")?, number("lost")?);
        words.next().is_none().then_some(Self { emitted, filtered, lost })
    }
}

/// One run of a node's `tracer`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// Lines that came.
    pub(super) arrived: u64,
    /// Events that it said were lost there.
    pub(super) told_lost: u64,
    /// Its closing line.
    pub(super) closing: Option<Closing>,
    /// Whether it has been ready.
    pub(super) ready: bool,
}

/// All runs of one node, or of all nodes. Nodes may say what they like: numbers are wider than theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Lines that came.
    arrived: u128,
    /// Those of them that made no sense.
    pub(super) malformed: u128,
    /// Those of them that were left out, since nobody took them.
    pub(super) dropped: u128,
    filtered: u128,
    lost: u128,
    /// Runs whose closing line never came.
    pub(super) open: u128,
    /// Lines that came of those.
    pub(super) arrived_open: u128,
}

impl Account {
    /// Adds a run that has ended.
    pub(super) fn add(&mut self, run: &Run) {
        let arrived = u128::from(run.arrived);
        self.arrived += arrived;
        if let Some(Closing { emitted, filtered, lost }) = run.closing {
            self.filtered += u128::from(filtered);
            // What was sent and never came is lost.
            self.lost += u128::from(lost) + u128::from(emitted.saturating_sub(run.arrived));
        } else {
            self.lost += u128::from(run.told_lost);
            // One that never began has seen nothing.
            if run.ready || run.arrived > 0 {
                self.open += 1;
                self.arrived_open += arrived;
            }
        }
    }

    /// The sum, with what became of the lines that came: seen = emitted + filtered + lost.
    pub(super) fn sum(&self, written: &Written) -> Sum {
        let seen = self.arrived + self.filtered + self.lost;
        let emitted = u128::from(written.emitted.load(Ordering::Relaxed));
        let filtered = self.filtered + u128::from(written.filtered.load(Ordering::Relaxed));
        // What is left, so with lines that the writer has not come to.
        Sum { seen, emitted, filtered, lost: seen.saturating_sub(emitted + filtered) }
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.arrived += other.arrived;
        self.malformed += other.malformed;
        self.dropped += other.dropped;
        self.filtered += other.filtered;
        self.lost += other.lost;
        self.open += other.open;
        self.arrived_open += other.arrived_open;
    }
}

/// The closing line's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) seen: u128,
    pub(super) emitted: u128,
    pub(super) filtered: u128,
    pub(super) lost: u128,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(emitted: u64, filtered: u64) -> Written {
        Written { emitted: emitted.into(), filtered: filtered.into(), ..Written::default() }
    }

    #[test]
    fn a_closing_line_is_told_from_what_looks_like_one() {
        let closing = Closing { emitted: 2, filtered: 3, lost: 4 };
        assert_eq!(Closing::parse("seen 9 emitted 2 filtered 3 lost 4"), Some(closing));
        for other in [
            "seen 9 emitted 2 filtered 3 lost",
            "seen 9 emitted 2 filtered 3 lost 4 more",
            "seen 9 emitted -2 filtered 3 lost 4",
            "seen 9 emitted 2 lost 4 filtered 3",
            "seen of containers",
            "",
        ] {
            assert_eq!(Closing::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_sent_and_never_came_is_lost() {
        let closing = Some(Closing { emitted: 10, filtered: 5, lost: 1 });
        let mut account = Account::default();
        account.add(&Run { arrived: 7, told_lost: 1, closing, ready: true });
        let written = written(6, 1);
        assert_eq!(account.sum(&written), Sum { seen: 16, emitted: 6, filtered: 6, lost: 4 });
        assert_eq!(account.open, 0);
    }

    #[test]
    fn without_a_closing_line_what_came_is_what_is_known() {
        let mut account = Account::default();
        account.add(&Run { arrived: 7, told_lost: 2, closing: None, ready: true });
        account.add(&Run::default());
        let written = written(7, 0);
        assert_eq!(account.sum(&written), Sum { seen: 9, emitted: 7, filtered: 0, lost: 2 });
        assert_eq!((account.open, account.arrived_open), (1, 7));
    }

    proptest! {
        #[test]
        fn it_adds_up_whatever_nodes_say(runs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<(u64, u64, u64)>>()), 0..5), parts in any::<(u8, u8)>()) {
            let (mut account, mut arrived_in_all) = (Account::default(), 0_u64);
            for (arrived, told_lost, closing) in runs {
                let arrived = arrived >> 8;
                arrived_in_all += arrived;
                let closing = closing.map(|(emitted, filtered, lost)| Closing { emitted, filtered, lost });
                account.add(&Run { arrived, told_lost, closing, ready: true });
            }
            let emitted = arrived_in_all / (u64::from(parts.0) + 2);
            let filtered = arrived_in_all / (u64::from(parts.1) + 2);
            let sum = account.sum(&written(emitted, filtered));
            prop_assert_eq!(sum.seen, sum.emitted + sum.filtered + sum.lost);
            prop_assert_eq!(sum.emitted, u128::from(emitted));
        }
    }
}
