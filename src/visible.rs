//! Text for people's eyes. Names come from servers and from bundles, which anybody may have made: what a terminal would
//! obey instead of showing (escape sequences, changes of direction) is shown as what it is. Programs get the bytes as they
//! are, in JSON.

use std::borrow::Cow;

/// `text` with everything escaped that a terminal does not show; line breaks and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'), |_| None)
}

/// The same in one line: a name must not look like a line of its own.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |c| c.is_whitespace().then_some(' '))
}

/// Control characters, line breaks of Unicode, and what turns the direction of the text around it (Unicode Standard Annex 9:
/// "Directional Formatting Characters").
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, instead: impl Fn(char) -> Option<char>) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match (hidden(c), instead(c)) {
            (false, _) => shown.push(c),
            (true, Some(other)) => shown.push(other),
            (true, None) => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let hostile = "a\u{1b}[2J\u{9b}1mb\u{202e}c\u{2066}\u{200f}\u{7f}\u{8}";
        assert_eq!(visible(hostile), "a\\u{1b}[2J\\u{9b}1mb\\u{202e}c\\u{2066}\\u{200f}\\u{7f}\\u{8}");
        assert_eq!(one_line(hostile), visible(hostile));
    }

    #[test]
    fn what_can_be_seen_stays() {
        for text in ["", "pachyderm", "Größe 名前 שלום 🦣 👨\u{200d}👩", r"a\u{1b}"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
            assert!(matches!(one_line(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn a_name_is_never_a_line_of_its_own() {
        assert_eq!(visible("one\n\ttwo\r\n"), "one\n\ttwo\\u{d}\n");
        assert_eq!(one_line("x\r\nclosed: all\u{2028}\u{85}\tright"), "x  closed: all   right");
    }
}
