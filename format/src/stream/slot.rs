//! A key slot: the sealed key, and the padding that fills its place.

use bytes::Bytes;

use super::BundleStream;
use crate::catalog::slot_hash;
use crate::container::EntryHeader;
use crate::error::{Error, Result};
use crate::keyslot::{SLOT, SLOT_MAX};
use crate::source::Source;
use crate::trailer::Extent;

/// A key slot, as it was found.
#[derive(Default)]
pub(super) struct SlotFound {
    pub(super) extent: Extent,
    pub(super) key: Bytes,
    pub(super) key_offset: u64,
    pub(super) hash: [u8; 32],
    /// Whether the padding is zero, as it must be.
    pub(super) zero: bool,
}

impl<R: Source> BundleStream<'_, R> {
    /// Reads the first slot.
    pub(super) async fn read_slot(&mut self) -> Result<SlotFound> {
        let (_, header) = self.next_part().await?;
        let key = self.container.read_all(SLOT_MAX).await?;
        self.read_padding(header, key).await
    }

    /// Reads the padding that follows `key`, and checks the slot's size.
    pub(super) async fn read_padding(&mut self, header: EntryHeader, key: Bytes) -> Result<SlotFound> {
        let (_, padding_header) = self.next_part().await?;
        let padding = self.container.read_all(SLOT_MAX).await?;
        let offset = header.offset - 512;
        let length = padding_header.offset + padding.len().next_multiple_of(512) as u64 - offset;
        // Whole blocks alone: a key's file has then one length, whoever reads the slot.
        if !length.is_multiple_of(SLOT) || !padding.len().is_multiple_of(512) {
            return Err(Error::damaged(&padding_header.name, padding_header.offset, "it does not fill the key's slot"));
        }
        let hash = slot_hash(&key, &padding);
        let zero = padding.iter().all(|&b| b == 0);
        Ok(SlotFound { extent: Extent { offset, length }, key, key_offset: header.offset, hash, zero })
    }
}
