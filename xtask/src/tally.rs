//! Counting tests: from the JUnit report of cargo-nextest, and from the lines that test binaries print.

use std::{fmt, fs, ops::AddAssign, path::Path};

use anyhow::{Context as _, Result, ensure};
use roxmltree::{Document, Node};

/// How many tests passed, failed and were skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Whether no test was run.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts the tests of a JUnit report, and prints why each of the skipped ones was skipped.
    ///
    /// cargo-nextest does not know tests that find out by themselves that they cannot run here: to it they have passed.
    /// They print `SKIPPED NAME: REASON` (`tests/harness/suite.rs`).
    pub(crate) fn of_report(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let document = Document::parse(&text).with_context(|| format!("{} is not XML", file.display()))?;
        let mut tally = Self::default();
        for test in document.descendants().filter(|node| node.has_tag_name("testcase")) {
            if test.children().any(|node| node.has_tag_name("failure") || node.has_tag_name("error")) {
                tally.failed += 1;
            } else if let Some(line) = skipped(test) {
                tally.skipped += 1;
                eprintln!("{line}");
            } else {
                tally.passed += 1;
            }
        }
        ensure!(!tally.is_empty(), "no test was run");
        Ok(tally)
    }

    /// Adds the counts of a test binary's last line and returns whether this is one, such as
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    pub(crate) fn add_line(&mut self, line: &str) -> bool {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return false };
        let Some((_, counts)) = result.split_once(". ") else { return false };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
        true
    }
}

/// What a test printed if it could not run: about itself, not what it is a test of.
fn skipped<'a>(test: Node<'a, '_>) -> Option<&'a str> {
    let start = format!("SKIPPED {}: ", test.attribute("name")?);
    let outputs = test.children().filter(|node| node.has_tag_name("system-err"));
    outputs.filter_map(|node| node.text()).flat_map(str::lines).find(|line| line.starts_with(&start))
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_has_not_passed() {
        let report = tempfile::NamedTempFile::new().unwrap();
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="nextest-run" tests="4" failures="1" errors="0"><testsuite name="t::a">
            <testcase name="good"><system-err>not SKIPPED good: really</system-err></testcase>
            <testcase name="absent"><system-out>running 1 test</system-out><system-err>SKIPPED absent: no criu
            </system-err></testcase>
            <testcase name="bad"><failure type="test failure"/></testcase>
            <testcase name="fine"><system-err>SKIPPED absent: no criu</system-err></testcase></testsuite></testsuites>"#;
        fs::write(report.path(), text).unwrap();
        let tally = Tally::of_report(report.path()).unwrap();
        assert_eq!(tally, Tally { passed: 2, failed: 1, skipped: 1 });
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
        fs::write(report.path(), r#"<testsuites tests="0"/>"#).unwrap();
        assert!(Tally::of_report(report.path()).is_err(), "nothing was run");
    }

    #[test]
    fn last_lines_of_test_binaries_are_counted() {
        let mut tally = Tally::default();
        assert!(!tally.add_line("running 4 tests"));
        assert!(!tally.add_line("test passed; 9 failed"));
        assert!(tally.is_empty());
        assert!(tally.add_line("test result: FAILED. 2 passed; 1 failed; 4 ignored; finished in 0.00s\n"));
        assert_eq!(tally, Tally { passed: 2, failed: 1, skipped: 4 });
    }
}
