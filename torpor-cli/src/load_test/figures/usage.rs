//! How much each GPU was used over the time of the test, by the requests of the records.

use crate::load_test::figures::{Area, COLOURS, Drawn, FONT, LABEL_PX, TITLE_PX};
use crate::load_test::record::Record;
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Parts that the time is cut into.
const BINS: usize = 60;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Usage {
    /// By GPU: per cent of each part of the time.
    gpus: BTreeMap<u32, Vec<f64>>,
    bin_s: f64,
}

impl Usage {
    /// `None` if no record says which GPU it used.
    pub(super) fn of(records: &[Record]) -> Option<Self> {
        let uses: Vec<_> = records.iter().filter_map(use_of).collect();
        let end = uses.iter().map(|one| one.end_s).fold(0.0, f64::max);
        let bin_s = (end / BINS as f64).max(0.1);
        let bins = (end / bin_s).ceil() as usize;
        let mut gpus = BTreeMap::<u32, Vec<f64>>::new();
        for one in &uses {
            let parts = gpus.entry(one.gpu).or_insert_with(|| vec![0.0; bins]);
            for (place, part) in parts.iter_mut().enumerate() {
                let (begin, end) = (place as f64 * bin_s, (place + 1) as f64 * bin_s);
                let within = (one.end_s.min(end) - one.begin_s.max(begin)).max(0.0);
                *part += 100.0 * within / bin_s;
            }
        }
        (!gpus.is_empty()).then_some(Self { gpus, bin_s })
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        let bins = self.gpus.values().map(Vec::len).max().unwrap_or(1);
        // More than all of it is a request that had it before its answer began, but not right before.
        let most = self.gpus.values().flatten().copied().fold(100.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption("Use of the GPUs", (FONT, TITLE_PX))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..bins as f64 * self.bin_s, 0.0..most)?;
        chart
            .configure_mesh()
            .x_desc(format!("time (s), in parts of {:.1} s", self.bin_s))
            .y_desc("used by the requests (% of the time)")
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .y_label_formatter(&|part| format!("{part:.0}"))
            .label_style((FONT, LABEL_PX))
            .light_line_style(WHITE)
            .draw()?;
        for ((gpu, parts), colour) in self.gpus.iter().zip(COLOURS.iter().cycle()) {
            let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
            let points =
                parts.iter().enumerate().map(|(place, part)| ((place as f64 + 0.5) * self.bin_s, *part));
            let mean = parts.iter().sum::<f64>() / parts.len().max(1) as f64;
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(format!("GPU {gpu} (mean {mean:.0} %)"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK)
            .label_font((FONT, LABEL_PX))
            .draw()
    }
}

struct Use {
    gpu: u32,
    begin_s: f64,
    end_s: f64,
}

/// A request's use of its GPU: right before its answer began, when that is told.
fn use_of(record: &Record) -> Option<Use> {
    let end_s = record.scheduled_s + record.first_byte_ms? / 1e3;
    let begin_s = (end_s - record.gpu_ms? / 1e3).max(0.0);
    Some(Use { gpu: record.gpu?, begin_s, end_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_test::record::Outcome;
    use crate::load_test::record::tests::record;

    #[test]
    fn use_is_spread_over_the_time_before_the_answer() {
        let on_gpu = |gpu, scheduled_s: f64, ms, gpu_ms| Record {
            gpu: Some(gpu),
            gpu_ms: Some(gpu_ms),
            scheduled_s,
            first_byte_ms: Some(ms),
            ..record("f", ms, Outcome::Ok)
        };
        let records =
            [on_gpu(0, 0.0, 1000.0, 1000.0), on_gpu(1, 5.0, 1000.0, 500.0), record("g", 1.0, Outcome::Ok)];
        let figure = Usage::of(&records).unwrap();
        let seconds = |gpu: u32| figure.gpus[&gpu].iter().sum::<f64>() / 100.0 * figure.bin_s;
        assert!((seconds(0) - 1.0).abs() < 1e-9 && (seconds(1) - 0.5).abs() < 1e-9, "{figure:?}");
        assert!((figure.gpus[&0][0] - 100.0).abs() < 1e-9 && figure.gpus[&1][0] == 0.0, "{figure:?}");
        assert!(Usage::of(&records[2..]).is_none(), "nobody says which GPU");
    }
}
