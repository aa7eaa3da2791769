//! TRAILER: the last 512 bytes before the closing zeros, from which a reader that can seek begins (SPEC §10).

use crate::error::{Error, Result};

/// Bytes of the trailer's content.
pub const TRAILER: usize = 512;
/// How far before the end of the file the trailer's content begins.
pub const TRAILER_FROM_END: u64 = 1536;
const MAGIC: &[u8; 8] = b"pacharc\n";
/// Bytes that the trailer's own hash covers.
const HASHED: usize = TRAILER - 32;

/// Where something lies in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// What the trailer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The content of `manifest.json.zst.age`.
    pub manifest: Extent,
    /// The content of `BLAKE3SUMS`.
    pub sums: Extent,
    /// The first key slot, headers included.
    pub key: Extent,
    /// The second key slot, headers included.
    pub key2: Extent,
    /// The content of `BLAKE3SUMS.minisig`; both numbers are 0 where there is none.
    pub signature: Extent,
    /// The bundle's id: BLAKE3 of `BLAKE3SUMS`.
    pub id: [u8; 32],
    /// BLAKE3 of a key slot's two contents, one after the other: both slots have the same.
    pub key_hash: [u8; 32],
    /// BLAKE3 of the signature; zero where there is none.
    pub signature_hash: [u8; 32],
}

impl Trailer {
    /// The block, its own hash included. Numbers are little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TRAILER] {
        let mut bytes = Vec::with_capacity(TRAILER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crate::FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for extent in [self.manifest, self.sums, self.key, self.key2, self.signature] {
            bytes.extend_from_slice(&extent.offset.to_le_bytes());
            bytes.extend_from_slice(&extent.length.to_le_bytes());
        }
        for hash in [self.id, self.key_hash, self.signature_hash] {
            bytes.extend_from_slice(&hash);
        }
        bytes.resize(HASHED, 0);
        let hash = blake3::hash(&bytes);
        let mut block = [0; TRAILER];
        let (content, own) = block.split_at_mut(HASHED);
        content.copy_from_slice(&bytes);
        own.copy_from_slice(hash.as_bytes());
        block
    }

    /// Reads the block that begins at `offset` of the file.
    ///
    /// # Errors
    /// [`Error::Torn`] where there is no trailer, [`Error::UnknownFormat`], [`Error::Damaged`].
    pub fn from_bytes(bytes: &[u8], offset: u64) -> Result<Self> {
        let damaged = |what: &str| Error::damaged("TRAILER", offset, what);
        if bytes.len() != TRAILER || !bytes.starts_with(MAGIC) {
            return Err(Error::Torn { offset: offset + TRAILER_FROM_END, what: "without a TRAILER".into() });
        }
        let mut fields = Fields(bytes.get(MAGIC.len()..).unwrap_or_default());
        let format = fields.number::<4>();
        let (content, own) = bytes.split_at(HASHED);
        if blake3::hash(content).as_bytes() != own {
            return Err(damaged("its hash does not fit"));
        }
        if format != u64::from(crate::FORMAT) {
            return Err(Error::UnknownFormat(u32::try_from(format).unwrap_or(u32::MAX)));
        }
        fields.number::<4>();
        let mut extent = || Extent { offset: fields.number::<8>(), length: fields.number::<8>() };
        let (manifest, sums, key, key2, signature) = (extent(), extent(), extent(), extent(), extent());
        let mut hash = || fields.hash();
        let (id, key_hash, signature_hash) = (hash(), hash(), hash());
        let trailer = Self { manifest, sums, key, key2, signature, id, key_hash, signature_hash };
        if trailer.to_bytes() != bytes {
            return Err(damaged("its reserved bytes are not zero"));
        }
        let ends = [manifest, sums, key, key2, signature].map(|e| e.offset.checked_add(e.length));
        if ends.iter().any(|end| end.is_none_or(|end| end > offset)) {
            return Err(damaged("it points behind itself"));
        }
        Ok(trailer)
    }
}

/// Takes fields off the front; a block of the right length always has them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    fn number<const N: usize>(&mut self) -> u64 {
        self.take::<N>().iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
    }

    fn hash(&mut self) -> [u8; 32] {
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer() -> Trailer {
        let extent = |n| Extent { offset: n * 100, length: n };
        Trailer {
            manifest: extent(1),
            sums: extent(2),
            key: extent(3),
            key2: extent(4),
            signature: extent(0),
            id: [1; 32],
            key_hash: [2; 32],
            signature_hash: [0; 32],
        }
    }

    /// A trailer whose byte at `place` is `byte`, with a hash that fits.
    fn forged(place: usize, byte: u8) -> [u8; TRAILER] {
        let mut bytes = trailer().to_bytes();
        bytes[place] = byte;
        let hash = blake3::hash(&bytes[..HASHED]);
        bytes[HASHED..].copy_from_slice(hash.as_bytes());
        bytes
    }

    #[test]
    fn what_it_points_to_ends_before_it() {
        // The last of its extents.
        let bytes = trailer().to_bytes();
        assert!(Trailer::from_bytes(&bytes, 404).is_ok());
        assert!(matches!(Trailer::from_bytes(&bytes, 403), Err(Error::Damaged { offset: 403, .. })));
        // The highest byte of an offset: the sum with the length is more than there are numbers.
        let overflowing = Trailer { sums: Extent { offset: u64::MAX, length: 1 }, ..trailer() }.to_bytes();
        assert!(matches!(Trailer::from_bytes(&overflowing, u64::MAX), Err(Error::Damaged { .. })));
    }

    #[test]
    fn each_way_to_be_none_has_its_error() {
        let torn = |bytes: &[u8]| matches!(Trailer::from_bytes(bytes, 1000), Err(Error::Torn { offset: 2536, .. }));
        let bytes = trailer().to_bytes();
        assert!(torn(&[]) && torn(&bytes[..TRAILER - 1]) && torn(&[&bytes[..], b"x"].concat()) && torn(&[0; TRAILER]));
        assert!(matches!(Trailer::from_bytes(&forged(8, 2), 1000), Err(Error::UnknownFormat(2))));
        assert!(matches!(Trailer::from_bytes(&forged(11, 1), 1000), Err(Error::UnknownFormat(0x0100_0001))));
        for reserved in [12, 15, HASHED - 1] {
            assert!(
                matches!(Trailer::from_bytes(&forged(reserved, 1), 1000), Err(Error::Damaged { .. })),
                "{reserved}"
            );
        }
    }

    #[test]
    fn a_trailer_comes_back_and_every_byte_counts() {
        let trailer = trailer();
        let bytes = trailer.to_bytes();
        assert_eq!(Trailer::from_bytes(&bytes, 10_000).unwrap(), trailer);
        for place in 0..TRAILER {
            let mut broken = bytes;
            broken[place] ^= 1;
            assert!(Trailer::from_bytes(&broken, 10_000).is_err(), "byte {place}");
        }
        assert!(Trailer::from_bytes(&bytes, 300).is_err());
    }
}
