//! Sealing and opening of one encrypted file inside the bundle: standard age to the bundle's own key, over zstd or raw.

use std::io::{BufRead as _, BufReader, Read, Write};

use age::{DecryptError, x25519};
use bytes::{Bytes, BytesMut};

use crate::entry::Packing;
use crate::error::{Error, Result};
use crate::payload::{Opening, Sealed, SealingWriter, open_in_place};

/// The key of one bundle: a fresh X25519 identity, whose public half appears nowhere in clear.
#[derive(Clone)]
pub struct BundleKey(x25519::Identity);

impl BundleKey {
    /// A fresh key.
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    pub(crate) fn identity(&self) -> &x25519::Identity {
        &self.0
    }

    pub(crate) fn from_identity(identity: x25519::Identity) -> Self {
        Self(identity)
    }

    /// Compresses (if so packed) and encrypts the concatenation of `parts`, each of which is given up when it is sealed. CPU-bound:
    /// for blocking threads.
    pub(crate) fn seal(&self, packing: Packing, level: i32, parts: Vec<Bytes>) -> Result<Sealed> {
        let plain = parts.iter().map(Bytes::len).sum::<usize>();
        let mut sealing = SealingWriter::new(&self.0.to_public(), plain).map_err(Error::Write)?;
        match packing {
            Packing::Raw => {
                for part in parts {
                    sealing.write_all(&part).map_err(Error::Write)?;
                }
            }
            Packing::Zstd => {
                let mut zstd = zstd::Encoder::new(sealing, level).map_err(Error::Write)?;
                zstd.include_checksum(true).map_err(Error::Write)?;
                // The frame says it, and whoever reads it need not guess.
                zstd.set_pledged_src_size(Some(plain as u64)).map_err(Error::Write)?;
                for part in parts {
                    zstd.write_all(&part).map_err(Error::Write)?;
                }
                sealing = zstd.finish().map_err(Error::Write)?;
            }
        }
        sealing.finish().map_err(Error::Write)
    }

    /// Decrypts `sealed`, where it lies if nobody else holds it, and decompresses it (if so packed) to at most `limit` bytes.
    /// CPU-bound: for blocking threads.
    ///
    /// The error is what is wrong, in words.
    pub(crate) fn open(&self, packing: Packing, sealed: Bytes, limit: usize) -> std::result::Result<Bytes, String> {
        let header = |e| match e {
            DecryptError::NoMatchingKeys => format!("it does not open with the bundle's key ({e})"),
            e => format!("it is not an age file of this bundle ({e})"),
        };
        let too_much = || format!("it unpacks to more than the {limit} bytes that the bundle declares");
        match packing {
            Packing::Raw => {
                let sealed = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
                let opened = open_in_place(sealed, &[&self.0], limit).map_err(header)?;
                opened.map_err(|e| format!("it does not decrypt ({e})"))?.ok_or_else(too_much)
            }
            Packing::Zstd => {
                let broken = |e: std::io::Error| format!("it does not decompress ({e})");
                let opened = Opening::new(&sealed, &[&self.0]).map_err(header)?;
                let mut opened = BufReader::with_capacity(zstd::zstd_safe::DCtx::in_size(), opened);
                // A hint, and checked by the decoder.
                let told = content_size(opened.fill_buf().map_err(broken)?).unwrap_or_default();
                if told > limit {
                    return Err(too_much());
                }
                let zstd = zstd::Decoder::with_buffer(&mut opened).map_err(|e| format!("it is not zstd ({e})"))?;
                let mut plain = Vec::with_capacity(told);
                zstd.take(limit as u64 + 1).read_to_end(&mut plain).map_err(broken)?;
                if plain.len() > limit {
                    return Err(too_much());
                }
                // The decoder stops at the end of its frames; the age file must end there too.
                match opened.read(&mut [0; 1]).map_err(|e| format!("it does not decrypt ({e})"))? {
                    0 => Ok(plain.into()),
                    _ => Err("bytes come after the compressed data".into()),
                }
            }
        }
    }
}

/// Bytes that a frame says it holds, if it says so.
fn content_size(frame: &[u8]) -> Option<usize> {
    zstd::zstd_safe::get_frame_content_size(frame).ok().flatten().and_then(|size| usize::try_from(size).ok())
}

impl std::fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BundleKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_says_of_its_size_is_not_believed() {
        let key = BundleKey::generate();
        let open = |frames: Vec<u8>, limit| {
            let sealed = key.seal(Packing::Raw, 0, vec![frames.into()]).unwrap().into_bytes();
            key.open(Packing::Zstd, sealed, limit)
        };
        let frame = zstd::bulk::compress(&[7; 300], 1).unwrap();
        assert_eq!(content_size(&frame), Some(300));
        assert_eq!(open(frame.clone(), 300).unwrap(), [7; 300][..]);
        assert!(open(frame.clone(), 299).unwrap_err().contains("more than the 299"));
        // Two frames, of which the first one speaks for itself alone.
        assert_eq!(open(frame.repeat(2), 600).unwrap(), [7; 600][..]);
        assert!(open(frame.repeat(2), 599).unwrap_err().contains("more than the 599"));
        // Magic number, descriptor, and two bytes of size less 256 (RFC 8878, 3.1.1.1).
        for (size, problem) in [(0_u16, "decompress"), (45, "decompress"), (u16::MAX, "more than")] {
            let mut lie = frame.clone();
            lie[5..7].copy_from_slice(&size.to_le_bytes());
            assert!(open(lie.clone(), 1000).unwrap_err().contains(problem), "{size}");
            assert!(open(lie, 1 << 20).is_err(), "{size}");
        }
        // One that says nothing, since its beginning was written before its end was known.
        let mut silent = zstd::Encoder::new(Vec::new(), 1).unwrap();
        silent.write_all(&[7; 300]).unwrap();
        silent.flush().unwrap();
        let silent = silent.finish().unwrap();
        assert_eq!((content_size(&silent), open(silent, 300).unwrap()), (None, vec![7; 300].into()));
    }

    #[test]
    fn what_is_sealed_opens() {
        let key = BundleKey::generate();
        let parts = [Bytes::from_static(b"hello "), Bytes::from(vec![b'x'; 300_000])];
        for packing in [Packing::Raw, Packing::Zstd] {
            let sealed = key.seal(packing, 3, parts.to_vec()).unwrap().into_bytes();
            // Somebody else holds it: it stays as it is.
            assert_eq!(key.open(packing, sealed.clone(), 300_006).unwrap(), parts.concat());
            assert!(key.open(packing, sealed.clone(), 300_005).unwrap_err().contains("more than"));
            let other = BundleKey::generate().open(packing, sealed.clone(), 300_006).unwrap_err();
            assert!(other.contains("bundle's key"), "{other}");
            for cut in [0, 10, 150, sealed.len() - 1] {
                assert!(key.open(packing, sealed.slice(..cut), 300_006).is_err(), "{cut}");
            }
            assert_eq!(key.open(packing, sealed, 300_006).unwrap(), parts.concat());
        }
    }
}
