//! Seeded numbers: SplitMix64, whose n-th number depends on the seed and on n alone, so that PyTorch can make a whole
//! tensor of the same numbers at once (`pytorch_function.py`).
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. Not for secrets.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// One of the many sequences of a seed.
    pub fn new(seed: u64, sequence: u64) -> Self {
        Self(mix(mix(seed).wrapping_add(sequence)))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `limit`, which is not 0 and far below 2^31.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    /// A number from -1 up to, but without, 1: a whole number of 2^-23, thus exact.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// Brings a list into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut zero = Random(0);
        assert_eq!((zero.next(), zero.next()), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
    }

    #[test]
    fn numbers_fill_their_range() {
        let mut random = Random::new(1, 2);
        let numbers: Vec<f32> = (0..10_000).map(|_| random.uniform()).collect();
        assert!(numbers.iter().all(|number| (-1.0..1.0).contains(number)));
        assert!(numbers.iter().sum::<f32>().abs() < 300.0);
        assert!(
            (0..1000).map(|_| random.below(3)).fold([0; 3], |mut seen, at| {
                seen[at] += 1;
                seen
            })[2]
                > 200
        );
    }

    #[test]
    fn a_shuffled_list_has_the_same_items() {
        let mut list: Vec<u32> = (0..100).collect();
        Random::new(3, 0).shuffle(&mut list);
        assert_ne!(list, (0..100).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..100).collect::<Vec<_>>());
    }
}
