//! A chart of what an open costs under each subject.

use std::{error::Error, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    figures::{self, Series},
    load::Work,
    rounds::{Place, Rounds},
    stats::{self, Spread},
    subject::Subject,
};

/// The subjects, from top to bottom.
const SUBJECTS: [Subject; 9] = [
    Subject::Empty,
    Subject::Floor,
    Subject::Filled,
    Subject::Tracepoints,
    Subject::FloorFexit,
    Subject::TracerJson,
    Subject::TracerColumns,
    Subject::Opensnoop,
    Subject::Bpftrace,
];

/// Draws it; does nothing where there is nothing to show.
pub(crate) fn draw(rounds: &Rounds, path: &Path) -> Result<()> {
    let values = |series: Series| series.into_values().collect::<Vec<f64>>();
    let bar = |subject| {
        let cost = figures::cost(rounds, subject, Work::Open, Place::Selected);
        Some((subject, Spread::of(&values(cost))?))
    };
    let bars: Vec<(Subject, Spread)> = SUBJECTS.into_iter().filter_map(bar).collect();
    let without = |(subject, _): &(Subject, _)| values(rounds.without(*subject, Work::Open, Place::Selected));
    let base = stats::median(&bars.iter().flat_map(without).collect::<Vec<_>>());
    if bars.is_empty() {
        return Ok(());
    }
    draw_bars(&bars, base, path).map_err(|error| anyhow!("drawing {}: {error}", path.display()))
}

fn draw_bars(bars: &[(Subject, Spread)], base: f64, path: &Path) -> Result<(), Box<dyn Error>> {
    const WIDTH: u32 = 860;
    const ROW: u32 = 46;
    const BLUE: RGBColor = RGBColor(0x2f, 0x6f, 0xb5);
    const GREY: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
    let rows = u32::try_from(bars.len())?;
    let most = bars.iter().fold(0.0, |most: f64, (_, spread)| most.max(spread.max));
    let area = SVGBackend::new(path, (WIDTH, 90 + ROW * rows)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Nanoseconds added to an open + close of {base:.0}"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..most * 1.1, 0.0..f64::from(rows))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    let label = |horizontal| TextStyle::from(("sans-serif", 13)).pos(Pos::new(horizontal, VPos::Center));
    for ((subject, spread), row) in bars.iter().zip((0..rows).rev()) {
        let colour = if subject.is_tracer() { BLUE } else { GREY };
        let middle = f64::from(row) + 0.5;
        let bar = [(0.0, middle - 0.3), (spread.median.max(0.0), middle + 0.3)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let whisker = vec![(spread.min.max(0.0), middle), (spread.max, middle)];
        chart.draw_series([PathElement::new(whisker, BLACK)])?;
        let value = format!("  {:.0}", spread.median);
        chart.draw_series([Text::new(value, (spread.max, middle), label(HPos::Left))])?;
        chart.draw_series([Text::new(format!("{}  ", subject.name()), (0.0, middle), label(HPos::Right))])?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Measurement;

    #[test]
    fn chart_names_what_was_measured() {
        let measurement = |(subject, per_operation)| Measurement {
            round: 0,
            subject,
            work: Work::Open,
            place: Place::Selected,
            operations: 1,
            base: [2200.0, 2300.0],
            per_operation,
            mean: per_operation,
            load_cpu: per_operation,
            subject_cpu: 0.0,
        };
        let rounds =
            Rounds { measurements: vec![measurement((Subject::Opensnoop, 12_800.0))], ..Rounds::default() };
        let path = harness::scratch::root().join("chart.svg");
        draw(&rounds, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        harness::scratch::remove(harness::scratch::root());
        for text in ["of 2250", "opensnoop", "10550"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }
}
