//! Why events were lost, and what to do about it.

use std::{collections::BTreeMap, fmt};

use super::Lost;

/// How many different reasons are counted: a node may send any.
const REASONS_MAX: usize = 16;

/// What to do about losses of this reason, if anything helps.
pub(super) fn remedy(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "buffer-full" => "raise --buffer-size or select less",
        "program-skipped" => "use --hook sys-exit, or trace fewer kinds at once",
        "unattributed" => "see the warnings, and tracer doctor",
        "output" => "the reader is too slow: write to a file, or select less",
        "unreported" => "the node did not report why",
        "connection" => "the connection to the node ended early",
        "malformed" => "another program wrote to the ring, or the node is not to be trusted",
        _ => return None,
    })
}

/// `lost COUNT of HOOK: REASON (REMEDY)`.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost {} of {}: {}", self.count, self.hook, self.reason)?;
        remedy(&self.reason).map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

/// Lost events, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<String, u128>);

impl Losses {
    /// Counts losses.
    pub(crate) fn add(&mut self, reason: &str, count: u128) {
        if count == 0 {
            return;
        }
        if let Some(known) = self.0.get_mut(reason) {
            *known = known.saturating_add(count);
        } else if self.0.len() < REASONS_MAX {
            self.0.insert(reason.to_owned(), count);
        }
    }

    /// Adds losses of another run.
    #[cfg(feature = "kubectl")]
    pub(crate) fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            self.add(reason, *count);
        }
    }

    /// How many were lost.
    #[cfg(feature = "kubectl")]
    pub(crate) fn total(&self) -> u128 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// `(REASON COUNT: REMEDY; …)`, or nothing.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "(";
        for (reason, count) in &self.0 {
            write!(f, "{separator}{reason} {count}")?;
            if let Some(remedy) = remedy(reason) {
                write!(f, ": {remedy}")?;
            }
            separator = "; ";
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_shown_with_reason_and_remedy() {
        let mut losses = Losses::default();
        assert_eq!(losses.to_string(), "");
        losses.add("buffer-full", 10);
        losses.add("buffer-full", 2);
        losses.add("other", 1);
        losses.add("none", 0);
        assert_eq!(losses.to_string(), "(buffer-full 12: raise --buffer-size or select less; other 1)");
    }

    #[test]
    fn a_loss_is_logged_with_its_remedy_if_there_is_one() {
        let lost = |reason: &'static str| Lost { count: 3, reason: reason.into(), hook: "open".into() };
        assert_eq!(
            lost("buffer-full").to_string(),
            "lost 3 of open: buffer-full (raise --buffer-size or select less)"
        );
        assert_eq!(lost("slots-full").to_string(), "lost 3 of open: slots-full");
    }

    #[test]
    fn reasons_are_bounded() {
        let mut losses = Losses::default();
        for n in 0..100 {
            losses.add(&n.to_string(), 1);
        }
        assert_eq!(losses.0.len(), REASONS_MAX);
    }
}
