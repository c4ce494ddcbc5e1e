//! Counting tests, from the lines that test binaries end with.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Whether no test was run at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Runs tests, writes their output to `to` as it comes and counts them. Tests that never say how they ended
    /// have failed, whatever the exit code.
    pub(crate) fn run(&mut self, command: &mut Command, mut to: impl Write) -> Result<()> {
        let name = process::name(command);
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("the tests' stdout is not a pipe")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        let mut ended = false;
        while stdout.read_until(b'\n', &mut line).with_context(|| format!("reading the output of {name}"))?
            > 0
        {
            // Nobody listening is no reason to stop the tests.
            drop(to.write_all(&line));
            ended |= self.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        let status = child.wait().with_context(|| format!("waiting for {name}"))?;
        if !status.success() {
            bail!("{name} failed ({status})");
        }
        ensure!(ended, "{name} ran no tests");
        Ok(())
    }

    /// Adds what a closing line says and tells whether it is one, such as
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    pub(crate) fn add(&mut self, line: &str) -> bool {
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

impl std::ops::AddAssign for Tally {
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
    fn adds_closing_lines_and_nothing_else() {
        let mut tally = Tally::default();
        assert!(!tally.add("running 4 tests"));
        assert!(!tally.add("test passed; 9 failed"));
        assert!(tally.is_empty());
        assert!(tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        ));
        assert!(tally.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out"));
        assert_eq!(tally, Tally { passed: 5, failed: 1, skipped: 1 });
        assert_eq!(tally.to_string(), "5 passed, 1 failed, 1 skipped");
        assert_eq!(Tally { passed: 2, ..Tally::default() }.to_string(), "2 passed, 0 failed");
    }

    #[test]
    fn counts_what_a_child_says_and_reports_its_failure() {
        let mut tally = Tally::default();
        let script = r"printf 'test result: ok. 2 passed; 0 failed; 0 ignored\n\377 not text'; exit 3";
        let mut shown = Vec::new();
        let error = tally.run(Command::new("sh").args(["-c", script]), &mut shown).unwrap_err();
        assert!(shown.ends_with(b"ignored\n\xff not text"));
        assert_eq!(tally, Tally { passed: 2, failed: 0, skipped: 0 });
        assert!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
    }

    #[test]
    fn silence_is_no_success() {
        let error = Tally::default().run(&mut Command::new("true"), Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "true ran no tests");
    }
}
