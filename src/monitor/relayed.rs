//! What a run elsewhere tells: its events, and what it writes for people, line by line.

use serde::Deserialize;

/// A line of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relayed<'a> {
    /// An event, as JSON: as `--json` writes them.
    Event(&'a str),
    /// Anything else: for people.
    Text(&'a str),
}

impl<'a> Relayed<'a> {
    /// What a line is.
    #[must_use]
    pub fn of(line: &'a str) -> Self {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(rename = "event")]
            _event: &'a str,
        }
        match serde_json::from_str::<Named<'_>>(line) {
            Ok(_) => Self::Event(line),
            Err(_) => Self::Text(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_from_text() {
        let event = r#"{"time":"2025-01-31T09:30:00Z","event":"phase","phase":"copy"}"#;
        assert_eq!(Relayed::of(event), Relayed::Event(event));
        for text in ["pacharc: error: x", "{", "{}", r#"{"level":"info"}"#, ""] {
            assert_eq!(Relayed::of(text), Relayed::Text(text));
        }
    }
}
