//! Limits the rate of log lines: containers and users can make `tracer` log as often as they like. Each call site
//! that logs has a budget, and lines above it are counted.

use std::{
    collections::HashMap,
    fmt::{Debug, Write as _},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{
    sanitize::line,
    sys::{stderr, thread::lock},
};

/// Target of the reports that the documentation guarantees. Their number is bounded by the interval between them, so
/// they need no budget.
pub(crate) const REPORTS: &str = "tracer::reports";

/// The budgets of this process, by call site.
pub(crate) static LOG_LIMIT: LazyLock<LogLimit> = LazyLock::new(LogLimit::default);

/// Whether the closing line has been written, after which nothing is logged.
static FINISHED: AtomicBool = AtomicBool::new(false);

/// Suppresses log lines that exceed the budget of their call site.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<HashMap<Identifier, Budget>>);

/// The layer of `tracing_subscriber` that applies [`LOG_LIMIT`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limited;

impl<S: Subscriber> Layer<S> for Limited {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if FINISHED.load(Ordering::Relaxed) {
            return false;
        }
        if event.metadata().target() == REPORTS {
            return true;
        }
        let admission = {
            let mut budgets = lock(&LOG_LIMIT.0);
            let budget = budgets
                .entry(event.metadata().callsite())
                .or_insert_with(|| Budget::new(*event.metadata().level(), Instant::now()));
            budget.admit(Instant::now(), || message(event))
        };
        match admission {
            Admission::LeftOut => false,
            Admission::Shown(before) => {
                before.into_iter().for_each(Summary::log);
                true
            }
        }
    }
}

/// Logs how many lines were suppressed, and suppresses all further ones: the closing line is the last one.
pub(crate) fn finish() {
    FINISHED.store(true, Ordering::Relaxed);
    let left_out: Vec<Summary> = lock(&LOG_LIMIT.0).values_mut().filter_map(Budget::summary).collect();
    left_out.into_iter().for_each(Summary::log);
}

/// The budget of a call site.
#[derive(Debug)]
struct Budget {
    /// Lines that may be logged at once.
    left: u32,
    burst: u32,
    /// Time after which one more line may be logged.
    interval: Duration,
    /// Time up to which `left` has been replenished.
    counted: Instant,
    left_out: u64,
    /// The first line that was suppressed.
    example: String,
}

/// Decision on a log line.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    LeftOut,
    /// It is logged, after this summary of suppressed lines.
    Shown(Option<Summary>),
}

/// Suppressed lines of a call site.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    count: u64,
    example: String,
}

impl Summary {
    fn log(self) {
        let Self { count, example } = self;
        stderr::write_line(
            format!(" WARN {count} more log lines like this one were left out: {example}\n").into_bytes(),
        );
    }
}

impl Budget {
    fn new(level: Level, now: Instant) -> Self {
        // Debug levels, which users ask for, have a larger budget.
        let (burst, interval) = if level <= Level::INFO {
            (20, Duration::from_millis(500))
        } else {
            (2_000, Duration::from_millis(2))
        };
        Self { left: burst, burst, interval, counted: now, left_out: 0, example: String::new() }
    }

    fn admit(&mut self, now: Instant, message: impl FnOnce() -> String) -> Admission {
        let passed = now.saturating_duration_since(self.counted).as_nanos() / self.interval.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed >= self.burst - self.left {
            (self.left, self.counted) = (self.burst, now);
        } else {
            self.left += passed;
            self.counted += self.interval * passed;
        }
        if self.left == 0 {
            if self.left_out == 0 {
                self.example = message();
            }
            self.left_out += 1;
            return Admission::LeftOut;
        }
        self.left -= 1;
        Admission::Shown(self.summary())
    }

    /// The lines that were suppressed since the last summary.
    fn summary(&mut self) -> Option<Summary> {
        let count = std::mem::take(&mut self.left_out);
        (count > 0).then(|| Summary { count, example: std::mem::take(&mut self.example) })
    }
}

/// The first line of an event's message, shortened.
fn message(event: &Event<'_>) -> String {
    const LEN_MAX: usize = 120;
    /// The field called `message`.
    #[derive(Default)]
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                // Writing to a string cannot fail.
                let _ = write!(self.0, "{value:?}");
            }
        }
    }
    let mut message = Message::default();
    event.record(&mut message);
    let Message(mut text) = message;
    let first_line = text.find('\n').unwrap_or(text.len());
    let end = first_line.min(text.floor_char_boundary(LEN_MAX));
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
    line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(budget: &mut Budget, now: Instant) -> bool {
        budget.admit(now, || "first".to_owned()) != Admission::LeftOut
    }

    #[test]
    fn flood_is_limited_to_a_burst_and_a_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(Level::WARN, start);
        // Ten seconds of a thousand lines each.
        let lines =
            (0..10_000).filter(|line| shown(&mut budget, start + Duration::from_millis(*line))).count();
        assert_eq!(lines, 20 + 19);
    }

    #[test]
    fn suppressed_lines_are_summarised_before_the_next_line() {
        let start = Instant::now();
        let mut budget = Budget::new(Level::WARN, start);
        assert_eq!((0..25).filter(|_| shown(&mut budget, start)).count(), 20);
        let later = start + Duration::from_secs(1);
        let summary = Summary { count: 5, example: "first".to_owned() };
        assert_eq!(budget.admit(later, String::new), Admission::Shown(Some(summary)));
        assert_eq!(budget.admit(later, String::new), Admission::Shown(None));
        assert_eq!(budget.summary(), None);
    }

    #[test]
    fn infrequent_lines_are_all_logged() {
        let start = Instant::now();
        let mut budget = Budget::new(Level::WARN, start);
        assert!((0..1000).all(|line| shown(&mut budget, start + line * Duration::from_millis(500))));
    }

    #[test]
    fn debug_lines_have_a_larger_budget() {
        let start = Instant::now();
        let mut budget = Budget::new(Level::DEBUG, start);
        assert_eq!((0..3000).filter(|_| shown(&mut budget, start)).count(), 2000);
    }
}
