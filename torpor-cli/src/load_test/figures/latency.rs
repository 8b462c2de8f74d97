//! How many of the requests were answered within what time: a line for all, and for those functions that were asked most.

use crate::load_test::figures::{Area, COLOURS, Drawn, FONT, LABEL_PX, TITLE_PX};
use crate::load_test::record::{Outcome, Record};
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Functions with a line of their own.
const MOST_LINES: usize = 7;
/// Points of a line.
const MOST_POINTS: usize = 400;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Latency {
    /// Label and points: milliseconds, and per cent of the requests that were answered within them.
    lines: Vec<(String, Vec<(f64, f64)>)>,
    ms: (f64, f64),
    title: String,
}

impl Latency {
    /// `None` if no request was answered well.
    pub(super) fn of(records: &[Record]) -> Option<Self> {
        let mut functions = BTreeMap::<&str, Vec<&Record>>::new();
        for record in records {
            functions.entry(&record.function).or_default().push(record);
        }
        let several = functions.len() > 1;
        let mut busiest: Vec<_> = functions.into_iter().collect();
        busiest.sort_by_key(|(name, of)| (std::cmp::Reverse(of.len()), *name));
        let left_out = busiest.len().saturating_sub(MOST_LINES);
        let all: Vec<_> = records.iter().collect();
        let total = several.then_some(("all", all));
        let shown = total.into_iter().chain(busiest.into_iter().take(MOST_LINES));
        let lines: Vec<_> = shown
            .map(|(name, of)| (name.to_owned(), cumulative(&of)))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let points = || lines.iter().flat_map(|(_, line)| line.iter().map(|&(ms, _)| ms));
        let ms = (points().reduce(f64::min)?, points().reduce(f64::max)?);
        let note = if left_out > 0 {
            format!(" ({left_out} functions have no line of their own)")
        } else {
            String::new()
        };
        Some(Self { lines, ms, title: format!("Latency of {} requests{note}", records.len()) })
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        let (least, most) = (self.ms.0 / 1.2, self.ms.1 * 1.2);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, TITLE_PX))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(64)
            .build_cartesian_2d((least..most).log_scale(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .x_desc("latency, from when a request was due to the end of its answer (ms, logarithmic)")
            .y_desc("requests answered within it (%)")
            .label_style((FONT, LABEL_PX))
            .x_label_formatter(&|ms| short(*ms))
            .y_label_formatter(&|part| format!("{part:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        let mut colours = COLOURS.iter().cycle();
        for (label, line) in &self.lines {
            let colour = if label == "all" && self.lines.len() > 1 {
                &BLACK
            } else {
                colours.next().unwrap_or(&BLACK)
            };
            let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
            chart
                .draw_series(LineSeries::new(line.iter().copied(), style))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK)
            .label_font((FONT, LABEL_PX))
            .draw()
    }
}

/// A line that rises to the part that was answered well.
fn cumulative(records: &[&Record]) -> Vec<(f64, f64)> {
    let well = records.iter().filter(|record| record.outcome == Outcome::Ok);
    // A logarithm wants something.
    let mut latencies: Vec<_> = well.map(|record| record.latency_ms.max(0.01)).collect();
    latencies.sort_by(f64::total_cmp);
    let every = latencies.len().div_ceil(MOST_POINTS).max(1);
    let last = latencies.len().saturating_sub(1);
    let kept = latencies.iter().enumerate().filter(|(rank, _)| rank % every == 0 || *rank == last);
    kept.map(|(rank, &ms)| (ms, 100.0 * (rank + 1) as f64 / records.len() as f64)).collect()
}

/// A number with as many digits as it needs.
fn short(number: f64) -> String {
    let digits = if number < 1.0 { 2 } else { 0 };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_test::record::tests::record;

    #[test]
    fn what_was_never_answered_keeps_the_line_below_a_hundred() {
        let mut records: Vec<_> = (1..=3).map(|ms| record("f", f64::from(ms), Outcome::Ok)).collect();
        records.push(record("f", 0.1, Outcome::Error));
        let all: Vec<_> = records.iter().collect();
        assert_eq!(cumulative(&all), [(1.0, 25.0), (2.0, 50.0), (3.0, 75.0)]);
        assert!(Latency::of(&records[3..]).is_none(), "nothing to draw");
    }

    #[test]
    fn of_many_functions_the_busiest_have_lines_and_all_have_one_together() {
        let mut records = Vec::new();
        for function in 0..20 {
            records.extend((0..=function).map(|_| record(&format!("f{function}"), 5.0, Outcome::Ok)));
        }
        let figure = Latency::of(&records).unwrap();
        let labels: Vec<_> = figure.lines.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["all", "f19", "f18", "f17", "f16", "f15", "f14", "f13"]);
        assert!(figure.title.contains("(13 functions"), "{}", figure.title);
    }
}
