//! What is shown and kept of a run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    churn::Churn, figures::Figure, latency::Latency, machine::Machine, population::Population,
    rounds::Rounds, saturation::Saturation,
};

/// The markers in `docs/performance.md` that what is written goes between.
const BEGIN: &str = "<!-- results: written by `cargo xtask bench --write-docs` -->";
const END: &str = "<!-- end of results -->";

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Option<Machine>,
    /// Arguments of the run.
    pub(crate) arguments: Vec<String>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) rounds: Option<Rounds>,
    pub(crate) saturation: Option<Saturation>,
    pub(crate) population: Option<Population>,
    pub(crate) churn: Option<Churn>,
    pub(crate) latency: Option<Latency>,
}

impl Report {
    /// With nothing in it.
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self { arguments, ..Self::default() }
    }

    /// The numbers in order; what has none stays behind the one that it came with.
    pub(crate) fn sort(&mut self) {
        let mut last = 0;
        let mut keyed: Vec<(u8, Figure)> = self
            .figures
            .drain(..)
            .map(|figure| {
                last = figure.number.unwrap_or(last);
                (last, figure)
            })
            .collect();
        keyed.sort_by_key(|(number, _)| *number);
        self.figures = keyed.into_iter().map(|(_, figure)| figure).collect();
    }

    /// The figures, for a terminal.
    pub(crate) fn table(&self) -> String {
        let rows: Vec<[String; 5]> = self.figures.iter().map(cells).collect();
        let header = ["#", "figure", "target", "measured", "verdict"].map(str::to_owned);
        let width = |column: usize| {
            let cells = rows.iter().chain([&header]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..5).map(width).collect();
        let line = |row: &[String; 5]| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        [&header].into_iter().chain(&rows).map(line).collect()
    }

    /// The figures and the machine, for `docs/performance.md`.
    pub(crate) fn markdown(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("| # | figure | target | measured | verdict |\n|---|---|---|---|---|\n");
        for figure in &self.figures {
            let cells = cells(figure).map(|cell| cell.replace('|', "\\|"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        let Some(machine) = &self.machine else { return text };
        let Machine { cpu, cpus, memory_mib, kernel, versions, load_before, load_after, started } = machine;
        let gigabytes = memory_mib.div_ceil(1024);
        let _ = write!(
            text,
            "\nMeasured {started} on {cpus} CPUs ({cpu}), {gigabytes} GiB, Linux {kernel}, load average {load_before} \
             before and {load_after} after, with `cargo xtask bench {}`. ",
            self.arguments.join(" ")
        );
        let versions: Vec<String> =
            versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
        let _ = writeln!(text, "Versions: {}.", versions.join("; "));
        text
    }

    /// Writes `results.json` there.
    pub(crate) fn write_json(&self, directory: &Path) -> Result<()> {
        let path = directory.join("results.json");
        let text = serde_json::to_vec_pretty(self).context("results to JSON")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Puts the table into the page, between its markers.
    pub(crate) fn write_docs(&self, page: &Path) -> Result<()> {
        let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
        let new = replaced(&text, &self.markdown())
            .with_context(|| format!("{} has no lines {BEGIN} and {END}", page.display()))?;
        fs::write(page, new).with_context(|| format!("writing {}", page.display()))
    }
}

fn cells(figure: &Figure) -> [String; 5] {
    [
        figure.number.map(|number| number.to_string()).unwrap_or_default(),
        figure.title.clone(),
        figure.target.clone(),
        figure.measured.clone(),
        figure.verdict.to_string(),
    ]
}

/// The page with `results` between its markers; `None` where these are missing.
fn replaced(page: &str, results: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{results}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Verdict;

    fn report() -> Report {
        let figure = |number, title: &str, verdict| Figure {
            number,
            title: title.into(),
            measured: "1.20 (1.10 to 1.30)".into(),
            target: "≤ 1.3".into(),
            verdict,
            value: Some(1.2),
            rounds: None,
        };
        Report {
            machine: Some(Machine {
                cpu: "Some CPU".into(),
                cpus: 2,
                memory_mib: 24_000,
                kernel: "6.18.0 x86_64".into(),
                versions: vec![("tracer".into(), "tracer 0.1.0".into())],
                load_before: "0.10".into(),
                load_after: "1.20".into(),
                started: "2026-11-21T13:00:00Z".into(),
            }),
            arguments: vec!["--quick".into()],
            figures: vec![
                figure(Some(1), "cost(a) / cost(b)", Verdict::Met),
                figure(None, "a | b", Verdict::NotMeasured("b is missing".into())),
            ],
            rounds: None,
            saturation: None,
            population: None,
            churn: None,
            latency: None,
        }
    }

    #[test]
    fn table_lines_up() {
        let table = report().table();
        let at = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(at(lines[0], "verdict"), at(lines[1], "met"));
        assert_eq!(at(lines[0], "verdict"), at(lines[2], "not measured: b is missing"));
    }

    #[test]
    fn page_keeps_what_is_around_the_results() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nProse.\n");
        let new = replaced(&page, &report().markdown()).unwrap();
        assert!(new.starts_with("# Title\n") && new.ends_with("Prose.\n") && !new.contains("old"), "{new}");
        assert!(new.contains("| 1 | cost(a) / cost(b) | ≤ 1.3 | 1.20 (1.10 to 1.30) | met |"), "{new}");
        assert!(new.contains("a \\| b"), "{new}");
        // Again, the same: nothing piles up.
        assert_eq!(replaced(&new, &report().markdown()).unwrap(), new);
        assert_eq!(replaced("no markers", "x"), None);
    }
}
