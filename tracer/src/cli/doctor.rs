//! `tracer doctor`.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::run::doctor::{self, Check, Outcome};

/// Writes what was found; returns whether tracing works.
pub(super) fn run(out: &mut impl Write, color: bool) -> io::Result<bool> {
    report(&doctor::check_all(), color, out)
}

fn report(checks: &[Check], color: bool, out: &mut impl Write) -> io::Result<bool> {
    let style = |style: AnsiColor| if color { style.on_default() } else { Style::new() };
    let (fine, note, failure) = (style(AnsiColor::Green), style(AnsiColor::Yellow), style(AnsiColor::Red));
    let (mut notes, mut missing) = (0, 0);
    for Check { name, outcome } in checks {
        match outcome {
            Outcome::Fine(found) => writeln!(out, "{fine}ok{fine:#}       {name:<13} {found}")?,
            Outcome::Note(found) => {
                notes += 1;
                writeln!(out, "{note}note{note:#}     {name:<13} {found}")?;
            }
            Outcome::Missing(problem, remedy) => {
                missing += 1;
                writeln!(out, "{failure}missing{failure:#}  {name:<13} {problem}")?;
                writeln!(out, "{:22} -> {remedy}", "")?;
            }
        }
    }
    let notes = match notes {
        0 => String::new(),
        1 => "; 1 note".to_owned(),
        notes => format!("; {notes} notes"),
    };
    match missing {
        0 => writeln!(out, "\n{fine}tracing works on this node{fine:#}{notes}")?,
        1 => writeln!(
            out,
            "\n{failure}tracing does not work on this node{failure:#}: 1 thing is missing{notes}"
        )?,
        _ => writeln!(
            out,
            "\n{failure}tracing does not work on this node{failure:#}: {missing} things are missing{notes}"
        )?,
    }
    Ok(missing == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(checks: &[Check], color: bool) -> (bool, String) {
        let mut out = Vec::new();
        let well = report(checks, color, &mut out).unwrap();
        (well, String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let checks = [
            Check { name: "BTF", outcome: Outcome::Missing("none".into(), "get one".into()) },
            Check { name: "kernel", outcome: Outcome::Fine("Linux 6".into()) },
            Check { name: "open", outcome: Outcome::Note("slower".into()) },
        ];
        let (well, text) = reported(&checks, false);
        assert!(!well);
        assert!(
            text.contains("missing  BTF") && text.contains("-> get one") && text.contains("ok       kernel")
        );
        assert!(
            text.ends_with("\ntracing does not work on this node: 1 thing is missing; 1 note\n"),
            "{text}"
        );
        assert_eq!(
            reported(&checks[1..2], false),
            (true, "ok       kernel        Linux 6\n\ntracing works on this node\n".to_owned())
        );
    }

    #[test]
    fn colours_mark_results_on_a_terminal() {
        let checks = [Check { name: "kernel", outcome: Outcome::Fine("Linux 6".into()) }];
        let (_, text) = reported(&checks, true);
        assert!(text.starts_with("\u{1b}[32mok\u{1b}[0m       kernel "), "{text:?}");
    }
}
