//! How a key becomes the path of a file, in the layouts that Pachyderm has used for LOCAL storage.
//!
//! The current one is gocloud's (`fileblob`): the key, a few characters escaped as `__0x<hex>__`. The plain one of 2.0 is the
//! same for every key that Pachyderm makes. The one of 2.1 to 2.10, `objects/<base64url(key)>`, is only read. Which one a file
//! follows is seen from its path alone, so that a directory may hold all of them.
//!
//! gocloud itself cannot hold every key (`/a` and `a` share a file there, `a/.` is `a`, `x.attrs` is refused). Such keys get
//! further escapes of the same kind, which gocloud's own listing reads back as the right key. So the mapping is injective.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use pacharc_format::Key;

/// The longest component of a path on the usual file systems, in bytes.
const COMPONENT: usize = 255;
/// What gocloud appends to an object's path for its attributes.
pub(super) const ATTRIBUTES: &str = ".attrs";
/// Folder of the layout of 2.1 to 2.10.
const OBJECTS: &[u8] = b"objects/";
/// Where that layout keeps unfinished files, named by 32 hex digits.
const STAGING: &[u8] = b"staging/";
/// What Pachyderm's own keys begin with (`src/internal/storage/server.go`, `src/internal/obj/util.go`).
const OWN: [&[u8]; 2] = [b"chunk/", b"test/"];

/// What a file in a bucket's directory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum File {
    /// An object of the current layout, or of the plain one.
    Object(Key),
    /// An object of the base64url layout.
    Encoded(Key),
    /// Attributes, or a file that is being written: no object.
    Beside,
    /// A name that stands for no key.
    Foreign,
}

/// The path of `key` in the current layout, relative to the root; `with_attributes` if a file of those lies beside it.
///
/// # Errors
/// Why no file can have this name.
pub(super) fn to_path(key: &Key, with_attributes: bool) -> Result<Vec<u8>, String> {
    let bytes = key.as_bytes();
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if bytes.len() > Key::MAX {
        return Err(format!("it is longer than {} bytes", Key::MAX));
    }
    let path = escape(bytes);
    let limit = if with_attributes { COMPONENT - ATTRIBUTES.len() } else { COMPONENT };
    match path.split(|&b| b == b'/').map(<[u8]>::len).max() {
        Some(longest) if longest > limit => {
            Err(format!("one of its components takes {longest} bytes, and a file's name has at most {limit}"))
        }
        _ => Ok(path),
    }
}

/// The path of `key` in the base64url layout, where it is a key that Pachyderm stored in it.
pub(super) fn to_encoded_path(key: &Key) -> Option<Vec<u8>> {
    OWN.iter().any(|own| key.as_bytes().starts_with(own)).then(|| {
        let mut path = OBJECTS.to_vec();
        path.extend_from_slice(URL_SAFE.encode(key.as_bytes()).as_bytes());
        path
    })
}

/// What the file at `path` (relative to the root) is.
pub(super) fn from_path(path: &[u8]) -> File {
    if let Some(key) = encoded_key(path) {
        return File::Encoded(key);
    }
    if is_staging(path) || is_temporary(path) || path.ends_with(ATTRIBUTES.as_bytes()) {
        return File::Beside;
    }
    let key = unescape(path);
    if escape(&key) == path { File::Object(Key::new(key)) } else { File::Foreign }
}

/// What the keys below the folder at `path` begin with.
pub(super) fn folder_prefix(path: &[u8]) -> Vec<u8> {
    let mut prefix = unescape(path);
    prefix.push(b'/');
    prefix
}

fn encoded_key(path: &[u8]) -> Option<Key> {
    let name = path.strip_prefix(OBJECTS)?;
    // The engine refuses anything but canonical base64, hence any `/` too.
    let key = Key::new(URL_SAFE.decode(name).ok()?);
    (to_encoded_path(&key)? == path).then_some(key)
}

fn is_staging(path: &[u8]) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    path.strip_prefix(STAGING).is_some_and(|name| name.len() == 32 && name.iter().all(digit))
}

/// gocloud writes to `<path>.<time in nanoseconds, hex>.tmp` first, and so does this tool.
fn is_temporary(path: &[u8]) -> bool {
    let Some(stem) = path.strip_suffix(b".tmp") else { return false };
    let Some(dot) = stem.iter().rposition(|&b| b == b'.') else { return false };
    let digits = &stem[dot + 1..];
    digits.len() == 16 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn escape(key: &[u8]) -> Vec<u8> {
    let path = escape_with(key, false);
    // Where the key itself has the look of an escape, all its underscores are escaped.
    if unescape(&path) == key { path } else { escape_with(key, true) }
}

fn escape_with(key: &[u8], underscores: bool) -> Vec<u8> {
    let mut path = Vec::with_capacity(key.len() + 16);
    for (i, &byte) in key.iter().enumerate() {
        let before = &key[..i];
        let escaped = match byte {
            b'/' => i == 0 || i + 1 == key.len() || before.ends_with(b"/") || before.ends_with(b".."),
            b'_' => underscores,
            _ => byte < 0x20,
        };
        if escaped { push_escape(&mut path, byte) } else { path.push(byte) }
    }
    let mut safe = Vec::with_capacity(path.len());
    for (i, component) in path.split(|&b| b == b'/').enumerate() {
        if i > 0 {
            safe.push(b'/');
        }
        match component {
            b"." | b".." => {
                push_escape(&mut safe, b'.');
                safe.extend_from_slice(&component[1..]);
            }
            _ => safe.extend_from_slice(component),
        }
    }
    // What would be passed over on reading, or read as the older layout, is spelt otherwise.
    if encoded_key(&safe).is_some() || is_staging(&safe) {
        escape_at(&mut safe, OBJECTS.len() - 1);
    }
    for suffix in [ATTRIBUTES, ".tmp"] {
        if safe.ends_with(suffix.as_bytes()) && (suffix == ATTRIBUTES || is_temporary(&safe)) {
            let dot = safe.len() - suffix.len();
            escape_at(&mut safe, dot);
        }
    }
    safe
}

fn push_escape(path: &mut Vec<u8>, byte: u8) {
    path.extend_from_slice(format!("__{byte:#x}__").as_bytes());
}

fn escape_at(path: &mut Vec<u8>, at: usize) {
    let rest = path.split_off(at);
    push_escape(path, rest[0]);
    path.extend_from_slice(&rest[1..]);
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some((c, after)) = leading_escape(rest) {
            key.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else {
            key.push(first);
            rest = tail;
        }
    }
    key
}

/// The character that `text` begins with in escaped form, and what follows it.
fn leading_escape(text: &[u8]) -> Option<(char, &[u8])> {
    let digits_on = text.strip_prefix(b"__0x")?;
    let length = digits_on.iter().position(|&b| b == b'_')?;
    let (digits, after) = digits_on.split_at(length);
    let after = after.strip_prefix(b"__")?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(key: &str) -> String {
        String::from_utf8(to_path(&Key::from(key), false).unwrap()).unwrap()
    }

    const CHUNK: &str = "chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a";

    /// The left column as gocloud v0.27.0 spells it (`blob/fileblob/fileblob.go`, `escapeKey`).
    #[test]
    fn gocloud_spells_keys_so() {
        for (key, expected) in [
            (CHUNK, CHUNK),
            ("foo/bar/baz", "foo/bar/baz"),
            ("foo//bar///baz", "foo/__0x2f__bar/__0x2f____0x2f__baz"),
            ("../../etc/x", "..__0x2f__..__0x2f__etc/x"),
            ("foo../bar", "foo..__0x2f__bar"),
            ("a/", "a__0x2f__"),
            ("line\nbreak", "line__0xa__break"),
            ("\0", "__0x0__"),
            ("a b+%é🦀", "a b+%é🦀"),
            ("a__b", "a__b"),
        ] {
            assert_eq!(path(key), expected);
        }
    }

    #[test]
    fn what_gocloud_cannot_hold_is_escaped_further() {
        for (key, expected) in [
            ("/abs", "__0x2f__abs"),
            (".", "__0x2e__"),
            ("a/./b", "a/__0x2e__/b"),
            ("a/..", "a/__0x2e__."),
            ("x.attrs", "x__0x2e__attrs"),
            ("x.17a1b2c3d4e5f601.tmp", "x.17a1b2c3d4e5f601__0x2e__tmp"),
            ("x.tmp", "x.tmp"),
            ("a__0x2f__b", "a__0x5f____0x5f__0x2f__0x5f____0x5f__b"),
            ("staging/0123456789abcdef0123456789abcdef", "staging__0x2f__0123456789abcdef0123456789abcdef"),
            ("objects/Y2h1bmsvYQ==", "objects__0x2f__Y2h1bmsvYQ=="),
            ("objects/Zm9v", "objects/Zm9v"),
        ] {
            assert_eq!(path(key), expected);
            assert_eq!(from_path(expected.as_bytes()), File::Object(Key::from(key)));
        }
    }

    #[test]
    fn the_older_layout_is_read() {
        let encoded = to_encoded_path(&Key::from(CHUNK)).unwrap();
        assert_eq!(from_path(&encoded), File::Encoded(Key::from(CHUNK)));
        assert_eq!(from_path(b"staging/0123456789abcdef0123456789abcdef"), File::Beside);
        // Not of Pachyderm's making: an object of the current layout.
        assert_eq!(from_path(b"objects/Zm9v"), File::Object(Key::from("objects/Zm9v")));
    }

    #[test]
    fn what_lies_beside_is_no_object() {
        for beside in ["chunk/a.attrs", "chunk/a.17a1b2c3d4e5f601.tmp"] {
            assert_eq!(from_path(beside.as_bytes()), File::Beside);
        }
        assert_eq!(from_path(b"a__0x41__"), File::Foreign);
    }

    #[test]
    fn names_too_long_for_a_file_are_refused() {
        assert!(to_path(&Key::new(vec![b'a'; 255]), false).is_ok());
        assert!(to_path(&Key::new(vec![b'a'; 255]), true).is_err());
        assert!(to_path(&Key::new(vec![b'a'; 256]), false).is_err());
        assert!(to_path(&Key::from(""), false).is_err());
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..80),
            "[a._/x0-9_]{1,60}".prop_map(String::into_bytes),
            "(__|0x|2f|/|\\.\\.|\\.|\n|_|staging/|objects/|\\.attrs|\\.tmp){1,20}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn every_key_comes_back_and_stays_inside(key in keys()) {
            let path = escape(&key);
            prop_assert!(path.split(|&b| b == b'/').all(|c| !matches!(c, b"" | b"." | b"..") && !c.contains(&0)));
            prop_assert_eq!(from_path(&path), File::Object(Key::new(key)));
        }
    }
}
