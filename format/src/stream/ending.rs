//! The end of a bundle: sums, signature, TRAILER, and that all of it agrees with what was read before.

use super::{BundleStream, Found, REMEMBERED};
use crate::container::EntryHeader;
use crate::error::{Error, Result};
use crate::grammar::Part;
use crate::signature::SIGNATURE_LIMIT;
use crate::source::Source;
use crate::trailer::{Extent, TRAILER, Trailer};

impl<R: Source> BundleStream<'_, R> {
    /// Sums, signature, TRAILER, the end of the file, and that all of it agrees.
    pub(super) async fn end(&mut self) -> Result<Found> {
        let (_, sums_header) = self.next_part().await?;
        let sums_hash = self.compare_sums().await?;
        let (mut signature, mut signature_found) = (None, (Extent::default(), [0; 32]));
        let trailer = loop {
            let (part, header) = self.next_part().await?;
            match part {
                Part::Signature => {
                    let content = self.container.read_all(SIGNATURE_LIMIT).await?;
                    let extent = Extent { offset: header.offset, length: content.len() as u64 };
                    signature_found = (extent, *blake3::hash(&content).as_bytes());
                    signature = Some(content);
                }
                _ => {
                    let content = self.container.read_all(TRAILER as u64).await?;
                    break Trailer::from_bytes(&content, header.offset)?;
                }
            }
        };
        if self.container.next().await?.is_some() || !self.grammar.may_end() {
            return Err(Error::damaged("the end of the file", self.container.offset(), "an entry follows TRAILER"));
        }

        if sums_hash.as_bytes() != &trailer.id {
            self.suspects = vec!["BLAKE3SUMS".into()];
        }
        let known = &self.named;
        if let Some(suspect) = self.suspects.iter().find(|name| !known.contains(*name)).cloned() {
            let more = self.suspects.len() - 1;
            let others = if more > 0 { format!(", nor have {more} others theirs") } else { String::new() };
            let what = format!("it does not have the hash that the bundle's sums give it{others}");
            return Ok(self.damage(Error::damaged(suspect, sums_header.offset, what)));
        }
        if let Err(error) = self.agree(&trailer, sums_header, signature_found) {
            return Ok(self.damage(error));
        }
        Ok(Found::End { id: hex::encode(trailer.id), bytes: self.container.offset(), signature })
    }

    /// Reads `BLAKE3SUMS` beside the lines that should stand there; differing names go to the suspects.
    async fn compare_sums(&mut self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let mut expected = self.sums.reader()?;
        let mut rest = String::new();
        loop {
            let bytes = self.container.read(1 << 16).await?;
            hasher.update(&bytes);
            rest.push_str(&String::from_utf8_lossy(&bytes));
            let mut lines = rest.as_str();
            while let Some((line, later)) = lines.split_once('\n') {
                let mut ours = String::new();
                std::io::BufRead::read_line(&mut expected, &mut ours).map_err(Error::Read)?;
                if ours.strip_suffix('\n') != Some(line) && self.suspects.len() < REMEMBERED {
                    self.suspects.push(ours.trim_end().split("  ").nth(1).unwrap_or("BLAKE3SUMS").to_owned());
                }
                lines = later;
            }
            rest.drain(..rest.len() - lines.len());
            if bytes.is_empty() {
                break;
            }
            if rest.len() > 4096 {
                // No line of ours is as long: what follows is read for its hash alone.
                self.suspects.truncate(REMEMBERED);
                self.suspects.push("BLAKE3SUMS".into());
                rest.clear();
            }
        }
        let mut left = String::new();
        std::io::BufRead::read_line(&mut expected, &mut left).map_err(Error::Read)?;
        if !left.is_empty() || !rest.is_empty() {
            self.suspects.push("BLAKE3SUMS".into());
        }
        Ok(hasher.finalize())
    }

    /// TRAILER and manifest against what was read.
    fn agree(&self, trailer: &Trailer, sums: EntryHeader, signature: (Extent, [u8; 32])) -> Result<()> {
        let wrong = |entry: &str, at, what: &str| Err(Error::damaged(entry, at, what));
        let at = self.container.offset();
        for (slot, name) in [(&self.slot, "bundle.key.age"), (&self.slot2, "bundle.key.2.age")] {
            if slot.hash != trailer.key_hash || !slot.zero {
                return wrong(name, slot.extent.offset, "the key's slot does not have the hash in TRAILER");
            }
        }
        let manifest_extent = self.manifest.as_ref().map(|(extent, _)| *extent).unwrap_or_default();
        let told = [trailer.manifest, trailer.sums, trailer.key, trailer.key2, trailer.signature];
        let sums = Extent { offset: sums.offset, length: self.sums.bytes() };
        let found = [manifest_extent, sums, self.slot.extent, self.slot2.extent, signature.0];
        if told != found || trailer.signature_hash != signature.1 {
            return wrong("TRAILER", at, "it does not describe this file");
        }
        if let Some((_, Some(manifest))) = &self.manifest
            && !self.damaged
        {
            let damaged = |what: String| Error::damaged("manifest.json.zst.age", manifest_extent.offset, what);
            self.entries.finish().map_err(damaged)?;
            self.catalog.finish(manifest, &self.entries, self.shards).map_err(damaged)?;
            if manifest.totals.segments != self.segments {
                return Err(damaged("the number of segments differs from what is in the bundle".into()));
            }
        }
        Ok(())
    }
}
