//! Seeded changes: the same number always gives the same bytes, so that what fails comes again.

/// Changes bytes in the ways that break parsers.
#[derive(Debug)]
pub struct Mutator(u64);

/// What numbers and limits stumble over.
const ODD: [&[u8]; 10] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"99999999999999999999",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\n",
    b"../",
    b"\"}",
    b"{\"a\":[[[[[[[[",
];

impl Mutator {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is 1 at least.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let hash = *blake3::hash(&self.0.to_le_bytes()).as_bytes();
        let number = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        usize::try_from(number % (end.max(1) as u64)).unwrap_or_default()
    }

    /// `seed`, changed in one to four ways; `others` are what may be spliced in.
    pub fn change(&mut self, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            self.once(&mut bytes, others);
        }
        bytes
    }

    fn once(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below(bytes.len() - at + 1).min(600);
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap_or_default(),
            2 => bytes.truncate(at),
            3 => bytes[at..end].fill(0),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            6 => {
                let odd = ODD[self.below(ODD.len())];
                bytes.splice(at..(at + odd.len()).min(bytes.len()), odd.iter().copied());
            }
            _ => {
                let other = others.get(self.below(others.len())).cloned().unwrap_or_default();
                let from = self.below(other.len() + 1);
                let to = from + self.below(other.len() - from + 1).min(2000);
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}
