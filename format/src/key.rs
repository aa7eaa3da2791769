//! Object keys, and the one way in which a key becomes a path inside a bundle.
//!
//! A key is any sequence of bytes (S3 promises UTF-8, a directory does not). A path is ASCII, safe on every file
//! system, and tells the key back: the mapping is injective and looks at no other key (SPEC §6.2).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Folder of the keys of exactly Pachyderm's form, which stay as they are.
const CHUNKS: &str = "objects/chunk/";
/// Folder of every other key, percent-encoded.
const OTHERS: &str = "objects/other/";
/// Longest component of an encoded path, its closing `~` not counted.
const COMPONENT: usize = 200;
/// Hex digits of a chunk's id (BLAKE2b-256).
const ID_DIGITS: usize = 64;
/// Hex digits of a chunk's generation.
const GEN_DIGITS: usize = 16;

/// The key of an object in a bucket: arbitrary bytes, at most [`Key::MAX`] of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The longest key that a bundle carries, in bytes (S3's own limit is 1,024; local paths may reach 4,096).
    pub const MAX: usize = 4096;

    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text, where it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// What a key of Pachyderm's form says of its object: `chunk/<64 hex>.<16 hex>`, lower case
    /// (Pachyderm, `src/internal/storage/chunk/client.go`, `chunkKey`).
    #[must_use]
    pub fn chunk(&self) -> Option<ChunkKey> {
        let name = self.as_str()?.strip_prefix("chunk/")?;
        let (id, generation) = name.split_once('.')?;
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if id.len() != ID_DIGITS || generation.len() != GEN_DIGITS || !lower_hex(id) || !lower_hex(generation) {
            return None;
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(id, &mut hash).ok()?;
        Some(ChunkKey { id: hash, generation: u64::from_str_radix(generation, 16).ok()? })
    }

    /// The path of this key's object inside a bundle.
    #[must_use]
    pub fn to_path(&self) -> String {
        if self.chunk().is_some() {
            return format!("objects/{}", String::from_utf8_lossy(&self.0));
        }
        let mut encoded = String::with_capacity(self.0.len() + 8);
        for &byte in &self.0 {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        let mut path = String::from(OTHERS);
        let mut rest = encoded.as_str();
        while rest.len() > COMPONENT {
            let (head, tail) = rest.split_at(COMPONENT);
            path.push_str(head);
            path.push_str("~/");
            rest = tail;
        }
        // A component `.` or `..` would be eaten by a file system: its first dot is encoded too.
        match rest {
            "." | ".." => path.extend(["%2E", &rest[1..]]),
            _ => path.push_str(rest),
        }
        // The empty key has an empty last component; `~` alone stands for it.
        if path.len() == OTHERS.len() {
            path.push('~');
        }
        path
    }

    /// The key of the object at `path`, or `None` if [`Key::to_path`] makes no such path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let key = if path.starts_with(CHUNKS) {
            Self::new(path.strip_prefix("objects/")?)
        } else {
            let encoded = path.strip_prefix(OTHERS)?.replace("~/", "");
            let encoded = if encoded == "~" { "" } else { encoded.as_str() };
            let mut bytes = Vec::with_capacity(encoded.len());
            let mut rest = encoded.bytes();
            while let Some(byte) = rest.next() {
                match byte {
                    b'%' => {
                        let (high, low) = (rest.next()?, rest.next()?);
                        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                        bytes.push(digit(high)? << 4 | digit(low)?);
                    }
                    _ => bytes.push(byte),
                }
            }
            Self::new(bytes)
        };
        // Only the canonical spelling counts, so that no two paths name one key.
        (key.0.len() <= Self::MAX && key.to_path() == path).then_some(key)
    }
}

/// What a key of Pachyderm's form promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkKey {
    /// BLAKE2b-256 of the object's bytes.
    pub id: [u8; 32],
    /// The row's `gen` in `storage.chunk_objects`.
    pub generation: u64,
}

impl ChunkKey {
    /// The key of the chunk `id` of generation `generation`.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(format!("chunk/{}.{:016x}", hex::encode(self.id), self.generation))
    }
}

/// Prints the key for people: control characters, backslash and bytes that are no UTF-8 are escaped.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for c in part.valid().chars() {
                if c.is_control() || c == '\\' { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self::new(key.as_bytes())
    }
}

/// In JSON a key is its path inside the bundle, which is plain ASCII whatever the bytes.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_path())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        Self::from_path(&path).ok_or_else(|| D::Error::custom("not the path of an object's key"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunk_keys_stay_plain() {
        let key = Key::from("chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a");
        assert_eq!(key.to_path(), format!("objects/{key}"));
        assert_eq!(key.chunk().map(|c| c.generation), Some(42));
        assert_eq!(key.chunk().map(|c| c.key()), Some(key));
    }

    #[test]
    fn near_misses_are_encoded() {
        for odd in ["chunk/", "chunk/0E.1", "../../etc/x", "/abs", "a//b", "a/", ".", "..", "", "~", "%", "a\nb", "é🦀"]
        {
            let path = Key::from(odd).to_path();
            assert!(path.starts_with(OTHERS), "{path}");
            assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{path}");
            assert_eq!(Key::from_path(&path), Some(Key::from(odd)), "{path}");
        }
    }

    #[test]
    fn a_chunks_key_is_lower_case_and_of_exact_length() {
        let (id, generation) = ("ab".repeat(32), "00000000000000cd");
        assert!(Key::from(format!("chunk/{id}.{generation}").as_str()).chunk().is_some());
        for (id, generation) in [
            (&id[1..], generation),
            (&format!("{id}a"), generation),
            (&id, &generation[1..]),
            (&id, "000000000000000cd"),
            (&id.to_uppercase(), generation),
            (&id, "00000000000000CD"),
            (&format!("g{}", &id[1..]), generation),
            (&id, "000000000000000g"),
        ] {
            let key = Key::from(format!("chunk/{id}.{generation}").as_str());
            assert_eq!(key.chunk(), None, "{key}");
            assert!(key.to_path().starts_with(OTHERS), "{key}");
        }
    }

    #[test]
    fn a_key_in_json_is_its_path() {
        let key = Key::new([b'a', 0xff]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, r#""objects/other/a%FF""#);
        assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), key);
        assert!(serde_json::from_str::<Key>(r#""objects/other/%61""#).is_err());
        // Longer than any, though spelled well.
        let path = Key::new(vec![b'a'; Key::MAX + 1]).to_path();
        assert_eq!(Key::from_path(&path), None);
    }

    #[test]
    fn a_dot_at_a_cut_is_safe() {
        for length in [200, 201, 202, 400, 401, 402, 1024, Key::MAX] {
            let key = Key::new(vec![b'.'; length]);
            let path = key.to_path();
            assert_eq!(Key::from_path(&path), Some(key));
            let odd = path.split('/').any(|part| matches!(part, "" | "." | ".."));
            assert!(!odd, "{path}");
        }
    }

    #[test]
    fn foreign_spellings_are_refused() {
        for path in ["objects/other/%61", "objects/other/a/b", "objects/other/", "objects/other/%", "objects/chunk/x"] {
            assert_eq!(Key::from_path(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let key = Key::new(bytes);
            let path = key.to_path();
            prop_assert!(path.is_ascii() && path.len() < 4096);
            prop_assert!(path.split('/').all(|p| !p.is_empty() && p.len() <= 201 && p != "." && p != ".."));
            prop_assert_eq!(Key::from_path(&path), Some(key));
        }

        #[test]
        fn what_is_read_is_canonical(path in "objects/(other|chunk)/[a-z%~/.0-9A-F]{0,40}") {
            if let Some(key) = Key::from_path(&path) {
                prop_assert_eq!(key.to_path(), path);
            }
        }
    }
}
