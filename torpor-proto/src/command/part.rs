//! Parts of the GPU, named by how they come of it: the same words mean as many multiprocessors on every GPU of the same name.

use super::PartLevel;

/// Levels of one part: green contexts of green contexts.
pub const MOST_PART_LEVELS: usize = 8;

/// Groups of one split.
pub const MOST_PART_GROUPS: u32 = 255;

/// In the place of a group's number: what remains.
pub const PART_REST: u32 = MOST_PART_GROUPS;

impl PartLevel {
    /// Takes a group, or what remains; numbers beyond are nothing.
    pub fn take(&mut self, group: u32) {
        if let Some(word) = self.taken.get_mut(group as usize / 64) {
            *word |= 1 << (group % 64);
        }
    }

    /// Whether a group, or what remains, is taken.
    #[must_use]
    pub fn takes(&self, group: u32) -> bool {
        self.taken.get(group as usize / 64).is_some_and(|word| word >> (group % 64) & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_a_bit_and_so_does_the_rest() {
        let mut level = PartLevel::default();
        [0, 63, 64, PART_REST, PART_REST + 1, u32::MAX].into_iter().for_each(|group| level.take(group));
        let taken: Vec<_> = (0..300).filter(|&group| level.takes(group)).collect();
        assert_eq!(taken, [0, 63, 64, PART_REST]);
    }
}
