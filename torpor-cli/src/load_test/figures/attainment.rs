//! Which part of each function's requests was answered in time: a bar for each, the worst on top.

use crate::load_test::figures::{Area, COLOURS, Drawn, FONT, LABEL_PX, TITLE_PX};
use crate::load_test::report::Summary;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Functions with a bar; further ones, which did better, have none.
const MOST_BARS: usize = 40;
const BAR_PX: u32 = 24;
const LABELS_PX: u32 = 230;
/// Letters of a name.
const NAME_LETTERS: usize = 22;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Attainment {
    /// Name, objective in milliseconds if there is one for all, and the part in per cent.
    bars: Vec<(String, Option<f64>, f64)>,
    title: String,
}

impl Attainment {
    /// `None` if no function has an objective.
    pub(super) fn of(rows: &[Summary]) -> Option<Self> {
        let bar = |row: &Summary| Some((row.function.clone(), row.slo_ms, 100.0 * row.attainment?));
        let (total, functions) = match rows {
            [functions @ .., total] if !functions.is_empty() => (bar(total), functions),
            _ => (None, rows),
        };
        let mut bars: Vec<_> = functions.iter().filter_map(bar).collect();
        bars.sort_by(|a, b| a.2.total_cmp(&b.2));
        let left_out = bars.len().saturating_sub(MOST_BARS);
        bars.truncate(MOST_BARS);
        bars.extend(total);
        let note = if left_out > 0 {
            format!(" (the {MOST_BARS} worst; {left_out} did better)")
        } else {
            String::new()
        };
        (!bars.is_empty()).then(|| Self { bars, title: format!("Requests answered in time{note}") })
    }

    pub(super) fn height(&self) -> u32 {
        130 + BAR_PX * self.bars.len() as u32
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        let count = self.bars.len();
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, TITLE_PX))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(LABELS_PX)
            .build_cartesian_2d(0.0..100.0, 0.0..count as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_desc("requests answered well within the function's objective (%)")
            .x_label_formatter(&|part| format!("{part:.0}"))
            .label_style((FONT, LABEL_PX))
            .light_line_style(WHITE)
            .draw()?;
        for (place, (name, objective, part)) in self.bars.iter().enumerate() {
            let top = (count - place) as f64;
            let colour = if name == "total" { BLACK.mix(0.6) } else { COLOURS[0].mix(0.9) };
            chart.draw_series([Rectangle::new([(0.0, top - 0.85), (*part, top - 0.15)], colour.filled())])?;
            let (x, y) = chart.backend_coord(&(0.0, top - 0.5));
            let label = match objective {
                Some(ms) => format!("{} ({ms:.0} ms)", shortened(name)),
                None => shortened(name),
            };
            let style = |position| {
                TextStyle::from((FONT, LABEL_PX).into_font()).pos(Pos::new(position, VPos::Center))
            };
            area.draw(&Text::new(label, (x - 8, y), style(HPos::Right)))?;
            let (end, _) = chart.backend_coord(&(*part, top));
            // Beside its bar, or in it where there is no room beside it.
            let (at, position, style_colour) =
                if *part < 88.0 { (end + 6, HPos::Left, BLACK) } else { (end - 6, HPos::Right, WHITE) };
            area.draw(&Text::new(format!("{part:.1} %"), (at, y), style(position).color(&style_colour)))?;
        }
        Ok(())
    }
}

/// A name that fits beside the bars.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= NAME_LETTERS {
        return name.to_owned();
    }
    // Functions of one model differ at the end.
    let (begin, end) = (NAME_LETTERS / 2, letters.len() - NAME_LETTERS / 2 + 1);
    letters[..begin].iter().chain(&['…']).chain(&letters[end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_test::record::Outcome;
    use crate::load_test::record::tests::record;
    use crate::load_test::report::summarise;
    use std::time::Duration;

    #[test]
    fn long_names_keep_what_tells_them_apart() {
        assert_eq!(shortened("resnet152"), "resnet152");
        assert_eq!(shortened("a-function-with-a-long-name-17"), "a-function-…ng-name-17");
    }

    #[test]
    fn the_worst_come_first_and_the_total_last() {
        let mut records = Vec::new();
        for (name, ms) in [("good", 1.0), ("bad", 90.0), ("no-objective", 1.0)] {
            records.push(record(name, ms, Outcome::Ok));
        }
        let objective = |name: &str| (name != "no-objective").then_some(Duration::from_millis(50));
        let figure = Attainment::of(&summarise(&records, objective)).unwrap();
        let bars: Vec<_> = figure.bars.iter().map(|(name, _, part)| (name.as_str(), *part)).collect();
        assert_eq!(bars, [("bad", 0.0), ("good", 100.0), ("total", 50.0)]);
        assert!(Attainment::of(&summarise(&records, |_| None)).is_none());
    }
}
