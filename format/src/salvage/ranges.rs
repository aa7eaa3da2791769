//! A set of numbers that are mostly neighbours, such as the segments that could be read: as large as the damage, not as
//! the bundle.

use std::ops::Range;

/// Sorted ranges that neither meet nor touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    pub(super) fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|range| range.end <= number);
        self.0.get(after).is_some_and(|range| range.start <= number)
    }

    pub(super) fn insert(&mut self, number: u64) {
        if self.contains(number) || number == u64::MAX {
            return;
        }
        let at = self.0.partition_point(|range| range.end < number);
        match self.0.get_mut(at) {
            Some(range) if range.end == number => range.end = number + 1,
            Some(range) if range.start == number + 1 => range.start = number,
            _ => self.0.insert(at, number..number + 1),
        }
        if let Some(right) = self.0.get(at + 1).cloned()
            && let Some(left) = self.0.get_mut(at)
            && left.end == right.start
        {
            left.end = right.end;
            self.0.remove(at + 1);
        }
    }

    /// The numbers below the largest that are not in it.
    pub(super) fn gaps(&self) -> Vec<Range<u64>> {
        let mut next = 0;
        let mut gaps = Vec::new();
        for range in &self.0 {
            if range.start > next {
                gaps.push(next..range.start);
            }
            next = range.end;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut ranges = Ranges::default();
        for number in [5, 1, 3, 4, 0, 9, 2, 5] {
            ranges.insert(number);
            assert!(ranges.contains(number));
        }
        assert_eq!(ranges.0, [0..6, 9..10]);
        assert_eq!(ranges.gaps().iter().map(|gap| (gap.start, gap.end)).collect::<Vec<_>>(), [(6, 9)]);
        assert!(!ranges.contains(6) && !ranges.contains(8) && !ranges.contains(10));
    }
}
