//! YAML as Helm and kubectl read it: strings that YAML 1.1 would take for something else are quoted, long ones not folded.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a value is as YAML.
pub(crate) fn to_string(value: &impl Serialize) -> Result<String, serde_saphyr::ser::Error> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let mut text = serde_saphyr::to_string_with_options(value, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Reads one document.
///
/// # Errors
/// Where it is wrong; not what stands there, which may be secret.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("it makes no sense at line {}, column {}", at.line(), at.column()),
        None => "it makes no sense".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn round_trip(value: &Value) {
        let text = to_string(value).unwrap();
        assert_eq!(from_str::<Value>(&text).as_ref(), Ok(value), "{text}");
    }

    #[test]
    fn strings_stay_strings() {
        for text in [
            "5432",
            "0x1F",
            "012",
            "1e3",
            "1_000",
            "12:30:45",
            "yes",
            "No",
            "on",
            "y",
            "~",
            "null",
            "Null",
            "",
            " a ",
            "a: b",
            "# c",
            "- d",
            "{",
            "[]",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\nb\n\n",
            "\n",
            " \n x",
            "\ta",
            "a\r\nb",
            "é",
            "\u{feff}",
            "2001-01-01",
            ".inf",
            "-",
            "---",
            "...",
            "=",
            "<<",
            "a #b",
            "a:",
            "\u{85}",
            "\0",
        ] {
            round_trip(&json!({ "key": text, "list": [text, { text: text }] }));
        }
    }

    #[test]
    fn long_strings_are_not_folded() {
        let text = "word ".repeat(100);
        let yaml = to_string(&json!({ "a": text.trim_end(), "b": "x".repeat(500) })).unwrap();
        assert_eq!(yaml.lines().count(), 2, "{yaml}");
    }

    #[test]
    fn an_error_does_not_quote() {
        let error = from_str::<Value>("password: [hunter2").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~\n]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[ -~]{0,12}", inner, 0..5).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value in value()) {
            round_trip(&value);
        }
    }
}
