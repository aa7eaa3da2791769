//! Whether text that goes by in portions, cut anywhere, is UTF-8.

/// Looks on while it goes by.
#[derive(Debug, Default)]
pub(super) struct Utf8Check {
    /// The beginning of a character whose end is still to come.
    cut: Vec<u8>,
    lines: u64,
}

impl Utf8Check {
    /// Sees `text` go by. In error, the line in which something is not UTF-8, from 1 on; nothing is to be asked any more then.
    pub(super) fn see(&mut self, text: &[u8]) -> Result<(), u64> {
        let mut rest = text;
        while !self.cut.is_empty() && !rest.is_empty() {
            self.cut.push(rest[0]);
            rest = &rest[1..];
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(error) if error.error_len().is_some() => return Err(self.lines + 1),
                Err(_) => {}
            }
        }
        let valid = match std::str::from_utf8(rest) {
            Ok(_) => rest.len(),
            Err(error) => error.valid_up_to(),
        };
        self.lines += memchr::memchr_iter(b'\n', &rest[..valid]).count() as u64;
        // No character has more than four bytes: of the rest no more is kept.
        self.cut.extend_from_slice(&rest[valid..rest.len().min(valid + 4)]);
        match std::str::from_utf8(&self.cut) {
            Err(error) if error.error_len().is_some() => Err(self.lines + 1),
            _ => Ok(()),
        }
    }

    /// Whether no character is cut off at the end.
    pub(super) fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line with something that is no text, wherever the portions are cut.
    fn odd_line(text: &[u8]) -> Option<u64> {
        let found = |step| {
            let mut check = Utf8Check::default();
            text.chunks(step).find_map(|portion| check.see(portion).err())
        };
        let whole = found(text.len());
        assert!((1..text.len()).all(|step| found(step) == whole), "{text:?}");
        whole
    }

    #[test]
    fn characters_may_be_cut_anywhere() {
        let text = "a\tÖ\n\n€🦀\n\\N\tü\n".as_bytes();
        assert_eq!(odd_line(text), None);
        let mut check = Utf8Check::default();
        check.see(text).unwrap();
        assert!(check.is_whole());
        check.see(&"🦀".as_bytes()[..3]).unwrap();
        assert!(!check.is_whole());
    }

    #[test]
    fn the_line_is_told() {
        let latin = ["Ö\n🦀\n".as_bytes(), b"\xe9 \n"].concat();
        for (text, line) in [
            (&b"\xff\n"[..], 1),
            (&latin[..], 3),
            // Cut off by the row's end, in the middle of a character; too long a form; half of a pair.
            (b"a\n\xf0\x9f\n", 2),
            (b"\n\xc0\x80", 2),
            (b"\n\n\xed\xa0\x80", 3),
        ] {
            assert_eq!(odd_line(text), Some(line), "{text:?}");
        }
    }
}
