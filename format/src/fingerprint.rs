//! A fingerprint of a set of lines in any order: their number, and the sum of their hashes.
//!
//! Accident-proof, not hostility-proof: whoever may choose the lines can make sums collide. What guards against
//! hostility is the encryption of what the lines lie in (SPEC §7.4).

use std::fmt;

/// The count of lines, and the sum modulo 2^256 of the BLAKE3 of each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Least significant limb first.
    sum: [u64; 4],
    count: u64,
}

impl Fingerprint {
    /// Adds one line, given without its line end.
    pub fn line(&mut self, line: &[u8]) {
        self.hash(&blake3::hash(line));
    }

    /// Adds a line by its BLAKE3.
    pub fn hash(&mut self, hash: &blake3::Hash) {
        // The hash as a number has its most significant byte first.
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(hash.as_bytes().rchunks_exact(8)) {
            *limb = bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b));
        }
        self.carry(limbs);
        self.count += 1;
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.carry(other.sum);
        self.count += other.count;
    }

    /// How many lines.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum as 64 hex digits, most significant first.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.sum.iter().rev().map(|limb| format!("{limb:016x}")).collect()
    }

    /// The fingerprint whose sum [`Self::to_hex`] printed.
    #[must_use]
    pub fn from_hex(hex: &str, count: u64) -> Option<Self> {
        let mut sum = [0; 4];
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (index, limb) in sum.iter_mut().rev().enumerate() {
            *limb = u64::from_str_radix(hex.get(index * 16..index * 16 + 16)?, 16).ok()?;
        }
        Some(Self { sum, count })
    }

    fn carry(&mut self, limbs: [u64; 4]) {
        let mut carry = false;
        for (mine, theirs) in self.sum.iter_mut().zip(limbs) {
            let (sum, over) = mine.overflowing_add(theirs);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *mine = sum;
            carry = over || over_again;
        }
    }
}

/// Takes the fingerprint of text that comes in portions, cut anywhere. A line may be longer than any of them: none is kept.
#[derive(Debug, Default)]
pub struct LineReader {
    complete: Fingerprint,
    /// The hash of a line whose end has not come yet.
    open: Option<blake3::Hasher>,
}

impl LineReader {
    /// Adds the lines of `text`; the last one goes on with the next portion if its end is not there.
    pub fn read(&mut self, mut text: &[u8]) {
        if let Some(mut open) = self.open.take() {
            let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
            let (rest, after) = text.split_at(end);
            open.update(rest);
            match after.split_first() {
                Some((_, after)) => {
                    self.complete.hash(&open.finalize());
                    text = after;
                }
                None => {
                    self.open = Some(open);
                    return;
                }
            }
        }
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, after) = text.split_at(end);
            self.complete.line(line);
            text = after.get(1..).unwrap_or_default();
        }
        if !text.is_empty() {
            self.open.get_or_insert_default().update(text);
        }
    }

    /// The fingerprint of all lines; `None` where the last one has no end.
    #[must_use]
    pub fn finish(self) -> Option<Fingerprint> {
        self.open.is_none().then_some(self.complete)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines, {}", self.count, self.to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_repetition_does() {
        let of = |lines: &[&[u8]]| {
            let mut fingerprint = Fingerprint::default();
            lines.iter().for_each(|line| fingerprint.line(line));
            fingerprint
        };
        assert_eq!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"a", b"a"]), of(&[b"a"]));
        assert_eq!(of(&[b"a"]).to_hex(), blake3::hash(b"a").to_hex().as_str());
        let mut merged = of(&[b"a"]);
        merged.merge(&of(&[b"b", b"c"]));
        assert_eq!(merged, of(&[b"a", b"b", b"c"]));
        assert_eq!(Fingerprint::from_hex(&merged.to_hex(), 3), Some(merged));
    }

    #[test]
    fn only_what_was_printed_is_read() {
        let hex = format!("{:016x}{:016x}{:016x}{:016x}", 1, 2, 3, 0xab_u64);
        let read = Fingerprint::from_hex(&hex, 7).unwrap();
        assert_eq!((read.to_hex(), read.count()), (hex.clone(), 7));
        let odd = [hex.to_uppercase(), hex[1..].to_owned(), format!("0{hex}"), hex.replace("ab", "+b"), String::new()];
        for odd in odd {
            assert_eq!(Fingerprint::from_hex(&odd, 7), None, "{odd}");
        }
    }

    #[test]
    fn lines_are_the_same_wherever_the_text_is_cut() {
        let lines: [&[u8]; 6] = [b"", b"a", b"bc\r", b"", b"\\.", b"the last"];
        let mut expected = Fingerprint::default();
        lines.iter().for_each(|line| expected.line(line));
        let text: Vec<u8> = lines.iter().flat_map(|line| [line, b"\n".as_slice()].concat()).collect();
        for portion in 1..=text.len() {
            let mut reader = LineReader::default();
            text.chunks(portion).for_each(|text| reader.read(text));
            assert_eq!(reader.finish(), Some(expected), "{portion}");
            let mut cut = LineReader::default();
            text[..text.len() - 1].chunks(portion).for_each(|text| cut.read(text));
            assert_eq!(cut.finish(), None, "{portion}");
        }
        assert_eq!(LineReader::default().finish(), Some(Fingerprint::default()));
    }

    #[test]
    fn carries_run_through() {
        let mut sum = Fingerprint::default();
        sum.hash(&blake3::Hash::from_bytes([0xff; 32]));
        let mut one = [0; 32];
        one[31] = 1;
        sum.hash(&blake3::Hash::from_bytes(one));
        assert_eq!(sum.to_hex(), "0".repeat(64));
    }
}
