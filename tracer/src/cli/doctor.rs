//! `tracer doctor`.

use std::io::{self, Write};

use crate::run::doctor::{self, Check, Outcome};

/// Writes what was found; returns whether tracing works.
pub(super) fn run(out: &mut impl Write) -> io::Result<bool> {
    report(&doctor::check_all(), out)
}

fn report(checks: &[Check], out: &mut impl Write) -> io::Result<bool> {
    let mut well = true;
    for Check { name, outcome } in checks {
        match outcome {
            Outcome::Fine(found) => writeln!(out, "ok       {name:<13} {found}")?,
            Outcome::Note(found) => writeln!(out, "note     {name:<13} {found}")?,
            Outcome::Missing(problem, remedy) => {
                well = false;
                writeln!(out, "missing  {name:<13} {problem}")?;
                writeln!(out, "{:22} -> {remedy}", "")?;
            }
        }
    }
    Ok(well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let checks = [
            Check { name: "BTF", outcome: Outcome::Missing("none".into(), "get one".into()) },
            Check { name: "kernel", outcome: Outcome::Fine("Linux 6".into()) },
        ];
        let mut out = Vec::new();
        assert!(!report(&checks, &mut out).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("missing  BTF") && text.contains("-> get one") && text.contains("ok       kernel")
        );
        assert!(report(&checks[1..], &mut Vec::new()).unwrap());
    }
}
