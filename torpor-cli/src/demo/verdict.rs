//! Whether the answers of a function are right.

use super::network::Network;
use super::reference::{Difference, Reference, first_difference};

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The request's seed.
    pub seed: u64,
    /// What the function says.
    pub values: Vec<f32>,
}

/// An answer that is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrong {
    /// The request's seed.
    pub seed: u64,
    /// Where the answer is off first.
    pub difference: Difference,
}

/// Computes each answer again, on the CPU, and compares.
pub fn check(network: &Network, answers: &[Answered]) -> Vec<Wrong> {
    let reference = Reference::new(network);
    let wrong = |Answered { seed, values }: &Answered| {
        let difference = first_difference(values, &reference.answer(*seed))?;
        Some(Wrong { seed: *seed, difference })
    };
    answers.iter().filter_map(wrong).collect()
}

impl Wrong {
    /// In words.
    pub fn describe(&self) -> String {
        let Difference { index, found, expected } = self.difference;
        let seed = self.seed;
        match (found, expected) {
            (Some(found), Some(expected)) => {
                format!("request {seed}: value {index} is {found}, and should be {expected}")
            }
            (None, _) => format!("request {seed}: the answer ends after {index} values"),
            (_, None) => format!("request {seed}: the answer has more than {index} values"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::Kind;
    use super::*;

    #[test]
    fn wrong_answers_are_named_and_right_ones_are_not() {
        let network = Network::new(Kind::Convnet, 5);
        let values = Reference::new(&network).answer(3);
        let mut off = values.clone();
        off[2] *= 1.001;
        let answers = [
            Answered { seed: 3, values: values.clone() },
            Answered { seed: 4, values: values.clone() },
            Answered { seed: 3, values: off },
            Answered { seed: 3, values: values[..5].to_vec() },
        ];
        let wrong = check(&network, &answers);
        let found: Vec<(u64, usize)> =
            wrong.iter().map(|wrong| (wrong.seed, wrong.difference.index)).collect();
        assert_eq!(found, [(4, 0), (3, 2), (3, 5)]);
        assert!(wrong[1].describe().contains("value 2"), "{}", wrong[1].describe());
        assert!(wrong[2].describe().contains("ends after 5"), "{}", wrong[2].describe());
    }
}
