//! The fingerprint of a table: the same for the same rows in any order, so that a restore can be proved without sorting.
//!
//! It is proof against accidents, not against malice: whoever can choose rows can make two tables agree. The hashes of
//! the bundle's segments are what guards against that.

use std::fmt;

/// Row count, and the sum modulo 2^256 of the BLAKE3 of each COPY text line without its line end. A hash counts as a
/// number whose first byte is the most significant, so the fingerprint of one row is what `b3sum` prints for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    rows: u64,
    /// The sum, least significant word first.
    sum: [u64; 4],
}

impl Fingerprint {
    /// Adds one line, given without its line end.
    pub fn line(&mut self, line: &[u8]) {
        self.hash(&blake3::hash(line));
    }

    /// Adds one line whose hash is known already.
    pub fn hash(&mut self, hash: &blake3::Hash) {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().rev().zip(hash.as_bytes().as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        self.add(words);
        self.rows += 1;
    }

    /// Adds all rows of `other`: the fingerprint of a partitioned table is that of its partitions, merged.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.sum);
        self.rows += other.rows;
    }

    /// How many rows were added.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The sum as 64 hex digits, most significant first.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let [a, b, c, d] = self.sum;
        format!("{d:016x}{c:016x}{b:016x}{a:016x}")
    }

    /// What [`Fingerprint::to_hex`] wrote, with its row count; `None` if it is no such thing.
    #[must_use]
    pub fn from_hex(sum: &str, rows: u64) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(sum, &mut bytes).ok()?;
        let mut fingerprint = Self::default();
        fingerprint.hash(&blake3::Hash::from_bytes(bytes));
        Some(Self { rows, ..fingerprint })
    }

    fn add(&mut self, words: [u64; 4]) {
        let mut carry = false;
        for (sum, word) in self.sum.iter_mut().zip(words) {
            let (partial, over) = sum.overflowing_add(word);
            let (total, over_again) = partial.overflowing_add(u64::from(carry));
            *sum = total;
            carry = over || over_again;
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {}", self.rows, self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        lines.iter().for_each(|line| fingerprint.line(line.as_bytes()));
        fingerprint
    }

    #[test]
    fn one_row_is_its_own_hash() {
        assert_eq!(of(&["1\ta"]).to_hex(), blake3::hash(b"1\ta").to_hex().as_str());
        assert_eq!(of(&[]).to_hex(), "0".repeat(64));
    }

    #[test]
    fn order_does_not_matter_but_number_does() {
        assert_eq!(of(&["a", "b", "c"]), of(&["c", "a", "b"]));
        assert_ne!(of(&["a", "a"]).to_hex(), of(&["a"]).to_hex());
        assert_ne!(of(&["a", "a"]).to_hex(), of(&["b", "b"]).to_hex(), "equal rows do not cancel out");
        assert_ne!(of(&[""]).rows(), of(&["", ""]).rows(), "rows of a table without columns");
    }

    #[test]
    fn parts_merge() {
        let mut whole = of(&["a", "b"]);
        whole.merge(&of(&["c"]));
        assert_eq!(whole, of(&["b", "c", "a"]));
    }

    #[test]
    fn the_carry_runs_through_and_out() {
        let all = "f".repeat(64);
        let mut sum = Fingerprint::from_hex(&all, 1).unwrap();
        sum.merge(&Fingerprint::from_hex(&format!("{:064x}", 1), 1).unwrap());
        assert_eq!(sum.to_hex(), "0".repeat(64));
        let mut sum = Fingerprint::from_hex(&format!("{:064x}", u64::MAX), 1).unwrap();
        sum.merge(&sum.clone());
        assert_eq!(sum.to_hex(), format!("{:064x}", u128::from(u64::MAX) * 2));
        assert_eq!(Fingerprint::from_hex("xy", 0), None);
    }
}
