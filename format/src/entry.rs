//! An entry: one thing that goes into a bundle or comes out of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::parts::Parts;

/// What is written into a segment as one member of its tar: a whole file, or one piece of a large one. On its way into a bundle
/// its bytes may lie in [`Parts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<B = Bytes> {
    /// Where it lies in the tree, e.g. `objects/chunk/…` or `database/pachyderm/attempt-1/pre-data.sql`: relative, ASCII,
    /// without empty, `.` or `..` components.
    pub path: String,
    /// The bytes; at most the bundle's piece limit.
    pub body: B,
    /// Whether zstd is worth a try.
    pub packing: Packing,
    /// The hash of `body`, where the producer has it already and has checked it.
    pub hash: Option<Hash>,
    /// What the provider keeps beside the bytes.
    pub metadata: Metadata,
    /// Set where the source's bytes are not what their key promises; kept so that nothing is lost.
    pub rotten: bool,
}

impl Entry {
    /// A file of text: compressed, hashed by the writer, without metadata.
    pub fn text(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            path: path.into(),
            body: body.into(),
            packing: Packing::Zstd,
            hash: None,
            metadata: Metadata::default(),
            rotten: false,
        }
    }
}

impl From<Entry> for Entry<Parts> {
    fn from(entry: Entry) -> Self {
        let Entry { path, body, packing, hash, metadata, rotten } = entry;
        Self { path, body: body.into(), packing, hash, metadata, rotten }
    }
}

/// Which kind of segment an entry goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// As it is: encrypted chunks, archives, pictures.
    Raw,
    /// Compressed with zstd.
    Zstd,
}

/// The hash of an entry's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// BLAKE2b-256, unkeyed: of an intact chunk, whose key it is.
    Blake2b([u8; 32]),
    /// BLAKE3: of everything else.
    Blake3([u8; 32]),
}

impl Hash {
    /// BLAKE3 of `bytes`.
    #[must_use]
    pub fn blake3(bytes: &[u8]) -> Self {
        Self::Blake3(*blake3::hash(bytes).as_bytes())
    }

    /// The same, of bytes in parts.
    pub(crate) fn blake3_of(parts: &Parts) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self::Blake3(*hasher.finalize().as_bytes())
    }

    /// BLAKE2b-256 of `bytes`, as Pachyderm names its chunks (Pachyderm, `src/internal/pachhash/hash.go`).
    #[must_use]
    pub fn blake2b(bytes: &[u8]) -> Self {
        let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
        Self::of_blake2b(state.update(bytes))
    }

    /// The same, of bytes in parts.
    pub(crate) fn blake2b_of(parts: &Parts) -> Self {
        let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
        for part in parts {
            state.update(part);
        }
        Self::of_blake2b(&state)
    }

    /// What a finished state says.
    pub(crate) fn of_blake2b(state: &blake2b_simd::State) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(state.finalize().as_bytes());
        Self::Blake2b(hash)
    }

    /// Which of `all` have the hash that stands beside them. BLAKE2b of several goes at a time, which takes a third of it.
    pub(crate) fn are_right(all: &[(Self, &[u8])]) -> Vec<bool> {
        let params = blake2b_simd::Params::new().hash_length(32).clone();
        let mut jobs: Vec<_> = all
            .iter()
            .map(|(hash, bytes)| match hash {
                Self::Blake2b(_) => Some(blake2b_simd::many::HashManyJob::new(&params, bytes)),
                Self::Blake3(_) => None,
            })
            .collect();
        let mut together: Vec<_> =
            jobs.iter_mut().zip(all).filter_map(|(job, (_, b))| Some((b.len(), job.as_mut()?))).collect();
        // The longest first, so that none is left alone at the end.
        together.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        blake2b_simd::many::hash_many(together.into_iter().map(|(_, job)| job));
        let right =
            |((hash, bytes), job): (&(Self, &[u8]), &Option<blake2b_simd::many::HashManyJob<'_>>)| match (hash, job) {
                (Self::Blake2b(hash), Some(job)) => job.to_hash().as_bytes() == hash,
                _ => hash.again(bytes) == *hash,
            };
        all.iter().zip(&jobs).map(right).collect()
    }

    /// Hashes `bytes` with this hash's function.
    #[must_use]
    pub fn again(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Blake2b(_) => Self::blake2b(bytes),
            Self::Blake3(_) => Self::blake3(bytes),
        }
    }
}

/// `b2:<hex>` or `b3:<hex>`.
impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blake2b(h) => write!(f, "b2:{}", hex::encode(h)),
            Self::Blake3(h) => write!(f, "b3:{}", hex::encode(h)),
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        let mut decode = |digits: &str| {
            if digits.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err("a hash is lower case");
            }
            hex::decode_to_slice(digits, &mut hash).map_err(|_| "a hash has 64 hex digits")
        };
        if let Some(digits) = s.strip_prefix("b2:") {
            decode(digits)?;
            Ok(Self::Blake2b(hash))
        } else if let Some(digits) = s.strip_prefix("b3:") {
            decode(digits)?;
            Ok(Self::Blake3(hash))
        } else {
            Err("a hash begins with b2: or b3:")
        }
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Most names in the user metadata of an entry. S3 allows two kilobytes in all; in memory a name takes ten times what it takes
/// in a bundle.
pub(crate) const NAMES_MAX: usize = 1024;

/// What an object store keeps beside an object's bytes, and gives back on restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Content-Encoding`, never acted upon (Pachyderm up to 2.9 writes `application/octet-stream` here).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `Cache-Control`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// User metadata (`x-amz-meta-*`), names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "few_names")]
    pub user: BTreeMap<String, String>,
}

impl Metadata {
    /// Nothing but defaults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Roughly the bytes that it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        // Two strings, and a share of the map.
        const NAME: usize = 100;
        let texts = [
            &self.content_type,
            &self.content_encoding,
            &self.content_disposition,
            &self.content_language,
            &self.cache_control,
        ];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len() + NAME).sum();
        texts + user
    }
}

/// Reads user metadata, and stops at a name too many.
fn few_names<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Names;

    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of strings")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut user, mut count) = (BTreeMap::new(), 0);
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                count += 1;
                if count > NAMES_MAX {
                    let what = format!("its user metadata have more than {NAMES_MAX} names");
                    return Err(serde::de::Error::custom(what));
                }
                user.insert(name, value);
            }
            Ok(user)
        }
    }

    deserializer.deserialize_map(Names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_hash_is_found_among_right_ones_of_both_kinds() {
        let bodies: Vec<Vec<u8>> = (0..12_u8).map(|n| vec![n; 1000 * usize::from(n % 7)]).collect();
        let right = |n: usize| if n.is_multiple_of(3) { Hash::blake3(&bodies[n]) } else { Hash::blake2b(&bodies[n]) };
        let all: Vec<(Hash, &[u8])> = (0..12).map(|n| (right(n), bodies[n].as_slice())).collect();
        assert_eq!(Hash::are_right(&all), [true; 12]);
        for wrong in 0..12 {
            let mut all = all.clone();
            all[wrong].0 = match all[wrong].0 {
                Hash::Blake2b(mut hash) => {
                    hash[31] ^= 1;
                    Hash::Blake2b(hash)
                }
                Hash::Blake3(mut hash) => {
                    hash[0] ^= 1;
                    Hash::Blake3(hash)
                }
            };
            let right = Hash::are_right(&all);
            assert_eq!(right.iter().filter(|right| !**right).count(), 1);
            assert!(!right[wrong]);
        }
    }

    #[test]
    fn a_hash_is_printed_and_read_in_one_way() {
        // Of no bytes, as `b2sum -l 256` and `b3sum` print them.
        let (blake2b, blake3) = (
            "b2:0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8",
            "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        );
        for (hash, text) in [(Hash::blake2b(b""), blake2b), (Hash::blake3(b""), blake3)] {
            assert_eq!((hash.to_string().as_str(), text.parse()), (text, Ok(hash)));
            assert_eq!(serde_json::from_str::<Hash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
            assert_eq!((hash.again(b""), hash.again(b"x") == hash), (hash, false));
        }
        assert_ne!(Hash::blake2b(b"x"), Hash::blake3(b"x"));
        for odd in [&blake2b.to_uppercase(), &blake2b[..66], &blake2b[3..], &format!("{blake3}0"), "", "b4:00", "b3:"] {
            assert!(odd.parse::<Hash>().is_err(), "{odd}");
        }
        let upper = format!("b3:{}", blake3[3..].to_uppercase());
        assert!(upper.parse::<Hash>().is_err());
    }

    #[test]
    fn metadata_are_empty_without_any_field() {
        assert!(Metadata::default().is_empty());
        let user = BTreeMap::from([(String::new(), String::new())]);
        let language = Metadata { content_language: Some(String::new()), ..Metadata::default() };
        assert!(!language.is_empty() && !Metadata { user, ..Metadata::default() }.is_empty());
    }

    #[test]
    fn user_metadata_have_a_limit() {
        for (names, fit) in [(0, true), (1, true), (NAMES_MAX, true), (NAMES_MAX + 1, false)] {
            let user: BTreeMap<String, String> = (0..names).map(|n| (n.to_string(), "x".to_owned())).collect();
            let metadata = Metadata { user, ..Metadata::default() };
            let json = serde_json::to_string(&metadata).unwrap();
            let read = serde_json::from_str::<Metadata>(&json);
            assert_eq!(read.ok(), fit.then(|| metadata.clone()), "{names}");
            assert!(metadata.memory() >= 100 * names && metadata.memory() <= 110 * names, "{names}");
        }
        // The same one again and again is not held, and takes its time all the same.
        let again = format!(r#"{{"user":{{"a":""{}}}}}"#, r#","a":"""#.repeat(NAMES_MAX));
        assert!(serde_json::from_str::<Metadata>(&again).is_err());
        for none in [r#"{"user":null}"#, r#"{"user":{"a":1}}"#, r#"{"user":[]}"#, r#"{"owner":{}}"#] {
            assert!(serde_json::from_str::<Metadata>(none).is_err(), "{none}");
        }
        let text = Metadata { cache_control: Some("x".repeat(500)), ..Metadata::default() };
        assert_eq!(text.memory(), 500);
    }
}
