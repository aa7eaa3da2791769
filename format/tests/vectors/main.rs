//! The golden vectors in `format/vectors/`: bundles that every later version must read, to the same bytes, through the
//! streaming and the seeking reader alike. `cargo test -p pacharc-format --test vectors -- --ignored` makes those that
//! are not there yet; one that is there is never touched.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod generate;
mod reading;
mod sidecar;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pacharc_format::Unlock;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// What the file `name` of `vectors/keys/` opens: identities in age's or in OpenSSH's syntax, or a passphrase.
fn unlock(name: &str) -> Unlock {
    let text = std::fs::read_to_string(folder().join("keys").join(name)).unwrap();
    let text = text.as_str();
    if name.starts_with("passphrase") {
        Unlock::Passphrase(text.trim_end().to_owned().into())
    } else if text.contains("OPENSSH") {
        Unlock::Identities(vec![Box::new(age::ssh::Identity::from_buffer(text.as_bytes(), None).unwrap())])
    } else {
        let secret = text.lines().find(|line| !line.starts_with('#')).unwrap();
        Unlock::Identities(vec![Box::new(secret.parse::<age::x25519::Identity>().unwrap())])
    }
}

#[test]
fn every_vector_is_tested() {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        match name.rsplit_once('.') {
            Some((stem, "pacharc" | "json")) => assert!(names.insert(name.clone()), "{stem}"),
            _ => assert!(["README.md", "keys"].contains(&name.as_str()), "{name} is no part of a vector"),
        }
    }
    let expected = cases::NAMES.iter().flat_map(|name| [format!("{name}.json"), format!("{name}.pacharc")]);
    assert_eq!(names, expected.collect());
}

/// One test a vector, so that all that fail are named.
macro_rules! vectors {
    ($($test:ident = $name:literal)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                assert!(cases::NAMES.contains(&$name));
                reading::check($name).await;
            }
        )*

        #[test]
        fn every_case_has_a_test() {
            assert_eq!(cases::NAMES, [$($name),*]);
        }
    };
}

vectors! {
    empty = "empty"
    zero_bytes = "zero-bytes"
    hostile_keys = "hostile-keys"
    pieces = "pieces"
    many_blocks = "many-blocks"
    passphrase = "passphrase"
    several_recipients = "several-recipients"
    states = "states"
    metadata = "metadata"
    databases = "databases"
    signed = "signed"
}
