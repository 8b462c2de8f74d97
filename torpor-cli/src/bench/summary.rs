//! Figures of several rounds, in three numbers each.

use serde::Serialize;

/// What a number is.
#[derive(Debug, Serialize)]
pub struct Metric {
    /// For programs.
    pub name: &'static str,
    /// Of the number.
    pub unit: &'static str,
    /// For people.
    pub description: &'static str,
}

/// One number of one round.
#[derive(Debug)]
pub struct Figure {
    /// What it is.
    pub metric: &'static Metric,
    /// In the metric's unit.
    pub value: f64,
}

/// The numbers of all rounds.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What they are.
    #[serde(flatten)]
    pub metric: &'static Metric,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Summary {
    /// Of at least one value, none of which is NaN.
    pub fn of(metric: &'static Metric, mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { metric, median, min: values[0], max: values[values.len() - 1] }
    }
}

/// Summaries in the order of a round, of at least one round. Every round has the same metrics in the same order.
pub fn summarise(rounds: &[Vec<Figure>]) -> Vec<Summary> {
    let of = |index: usize| rounds.iter().map(|figures| figures[index].value).collect();
    rounds[0].iter().enumerate().map(|(index, figure)| Summary::of(figure.metric, of(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Metric = Metric { name: "first", unit: "ns", description: "" };
    const SECOND: Metric = Metric { name: "second", unit: "µs", description: "" };

    #[test]
    fn a_summary_is_over_rounds_not_over_metrics() {
        let round = |first, second| {
            vec![Figure { metric: &FIRST, value: first }, Figure { metric: &SECOND, value: second }]
        };
        let summaries = summarise(&[round(5.0, 10.0), round(1.0, 40.0), round(4.0, 20.0)]);
        let shown: Vec<_> = summaries
            .iter()
            .map(|summary| (summary.metric.name, summary.median, summary.min, summary.max))
            .collect();
        assert_eq!(shown, [("first", 4.0, 1.0, 5.0), ("second", 20.0, 10.0, 40.0)]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(Summary::of(&FIRST, vec![4.0, 1.0, 2.0, 9.0]).median, 3.0);
        assert_eq!(Summary::of(&FIRST, vec![7.0]).median, 7.0);
    }
}
