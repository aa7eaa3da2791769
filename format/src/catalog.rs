//! The catalog: every path in the bundle, sorted, with its place and what the live set says of it.
//!
//! Lines lie in blocks; directory blocks name the first path of each; the manifest names the first path of each directory
//! block. So one path is found by reading one of each (SPEC §8.3).

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::index::{CatalogLine, IndexLine, ShardHead, ShardKind, State, head_line};
use crate::manifest::{CatalogBlock, Manifest};
use crate::signature::{SIGNATURE, SIGNATURE_LIMIT, Signer, trusted_comment};
use crate::trailer::{Extent, Trailer};
use crate::writer::{Core, SHARD, Written};

/// Writes the catalog, then everything that ends a bundle.
pub struct CatalogWriter<W> {
    core: Core<W>,
    catalog: BlockWriter,
    directory: BlockWriter,
    root: Vec<CatalogBlock>,
    last: Option<String>,
    lines: u64,
    in_catalog: Fingerprint,
}

/// One level of blocks.
struct BlockWriter {
    kind: ShardKind,
    number: u64,
    first: String,
    plain: String,
}

impl BlockWriter {
    fn new(kind: ShardKind) -> Self {
        Self { kind, number: 0, first: String::new(), plain: String::new() }
    }

    fn push(&mut self, path: &str, line: &str) {
        if self.plain.is_empty() {
            path.clone_into(&mut self.first);
        }
        self.plain.push_str(line);
        self.plain.push('\n');
    }

    /// Writes the block, if there is anything in it.
    async fn flush<W: AsyncWrite + Unpin>(&mut self, core: &mut Core<W>) -> Result<Option<CatalogBlock>> {
        if self.plain.is_empty() {
            return Ok(None);
        }
        let head = ShardHead { bundle: core.form.bundle, part: self.kind, number: self.number };
        let plain = head_line(head) + &std::mem::take(&mut self.plain);
        let (extent, hash) = core.append_sealed(&block_name(self.kind, self.number), plain.into()).await?;
        let block = CatalogBlock {
            first: std::mem::take(&mut self.first),
            number: self.number,
            offset: extent.offset,
            length: extent.length,
            hash: hash.to_hex().to_string(),
        };
        self.number += 1;
        Ok(Some(block))
    }
}

/// The outer entry's name of a shard or block.
pub(crate) fn block_name(kind: ShardKind, number: u64) -> String {
    match kind {
        ShardKind::Index => format!("index/{number:08}.jsonl.zst.age"),
        ShardKind::Catalog => format!("catalog/{number:08}.jsonl.zst.age"),
        ShardKind::Directory => format!("directory/{number:08}.jsonl.zst.age"),
    }
}

impl<W: AsyncWrite + Unpin> CatalogWriter<W> {
    pub(crate) fn new(core: Core<W>) -> Self {
        Self {
            core,
            catalog: BlockWriter::new(ShardKind::Catalog),
            directory: BlockWriter::new(ShardKind::Directory),
            root: Vec::new(),
            last: None,
            lines: 0,
            in_catalog: Fingerprint::default(),
        }
    }

    /// Adds the line of an entry: `json` as [`crate::BundleWriter::entries`] gave it.
    ///
    /// # Errors
    /// [`Error::Worker`] where the paths do not ascend, [`Error::Write`].
    pub async fn push(&mut self, state: State, path: &str, json: &str) -> Result<()> {
        self.in_catalog.line(json.as_bytes());
        self.line(path, &CatalogLine::json_of(state, json)).await
    }

    /// Adds a live object that the bucket did not have.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn push_missing(&mut self, path: &str, size: u64) -> Result<()> {
        let line = IndexLine {
            path: path.to_owned(),
            size,
            hash: None,
            place: None,
            pieces: None,
            metadata: crate::Metadata::default(),
            rotten: false,
        };
        self.line(path, &CatalogLine::json_of(State::Missing, &line.to_json())).await
    }

    async fn line(&mut self, path: &str, json: &str) -> Result<()> {
        if self.last.as_deref().is_some_and(|last| last >= path) {
            return Err(Error::Worker(format!("{path} is in the bundle twice, or out of order")));
        }
        self.last = Some(path.to_owned());
        self.lines += 1;
        self.catalog.push(path, json);
        if self.catalog.plain.len() >= SHARD {
            self.flush_catalog().await?;
        }
        Ok(())
    }

    async fn flush_catalog(&mut self) -> Result<()> {
        if let Some(block) = self.catalog.flush(&mut self.core).await? {
            let line = serde_json::to_string(&block).map_err(|e| Error::Worker(e.to_string()))?;
            self.directory.push(&block.first, &line);
            if self.directory.plain.len() >= SHARD {
                self.flush_directory().await?;
            }
        }
        Ok(())
    }

    async fn flush_directory(&mut self) -> Result<()> {
        self.root.extend(self.directory.flush(&mut self.core).await?);
        Ok(())
    }

    /// Ends the bundle: second key slot, manifest, sums, the signature where there is a signer, TRAILER. What only the writer
    /// knows it fills into `manifest`.
    ///
    /// Gives the output back, flushed, what was written, and the manifest as it stands in the bundle.
    ///
    /// # Errors
    /// [`Error::Worker`] where lines of entries are absent from the catalog, [`Error::Sign`], [`Error::Write`],
    /// [`Error::Spool`].
    pub async fn finish(
        mut self,
        mut manifest: Manifest,
        signer: Option<&dyn Signer>,
    ) -> Result<(W, Written, Manifest)> {
        self.flush_catalog().await?;
        self.flush_directory().await?;
        let mut core = self.core;
        if self.in_catalog != core.fingerprint {
            return Err(Error::Worker("the catalog does not hold exactly the entries of the bundle".into()));
        }
        core.totals.catalog_lines = self.lines;
        core.totals.index_fingerprint = core.fingerprint.to_hex();
        let key2 = core.append_slot(".2").await?;
        manifest.about = core.about.clone();
        manifest.totals = core.totals.clone();
        manifest.catalog = self.root;
        manifest.sums = core.sums.hash().to_hex().to_string();
        let json = serde_json::to_vec(&manifest).map_err(|e| Error::Worker(e.to_string()))?;
        let (manifest_extent, _) = core.append_sealed("manifest.json.zst.age", json.into()).await?;

        let length = core.sums.bytes();
        let offset = core.container.begin("BLAKE3SUMS", length).await?;
        let mut lines = core.sums.reader()?;
        loop {
            let bytes = std::io::BufRead::fill_buf(&mut lines).map_err(Error::Write)?;
            let count = bytes.len();
            if count == 0 {
                break;
            }
            core.container.content(bytes).await?;
            std::io::BufRead::consume(&mut lines, count);
        }
        core.container.end(length).await?;
        let (signature, signature_hash) = match signer {
            Some(signer) => core.append_signature(signer).await?,
            None => (Extent::default(), [0; 32]),
        };

        let trailer = Trailer {
            manifest: manifest_extent,
            sums: Extent { offset, length },
            key: core.slot_extent,
            key2,
            signature,
            id: *core.sums.hash().as_bytes(),
            key_hash: slot_hash(&core.slot.key, &core.slot.padding),
            signature_hash,
        };
        core.container.append("TRAILER", &trailer.to_bytes()).await?;
        let (mut output, bytes) = core.container.finish().await?;
        output.flush().await.map_err(Error::Write)?;
        let id = core.sums.hash().to_hex().to_string();
        Ok((output, Written { id, bytes, totals: core.totals }, manifest))
    }
}

impl<W: AsyncWrite + Unpin> Core<W> {
    /// Has the sums signed, and appends the signature. Gives its extent and hash.
    async fn append_signature(&mut self, signer: &dyn Signer) -> Result<(Extent, [u8; 32])> {
        let signature = signer.sign(&mut self.sums.reader()?, &trusted_comment(&self.about)).map_err(Error::Sign)?;
        if signature.is_empty() || signature.len() as u64 > SIGNATURE_LIMIT {
            let why = format!("it has {} bytes, and at most {SIGNATURE_LIMIT} are allowed", signature.len());
            return Err(Error::TooLarge { what: SIGNATURE.into(), why });
        }
        let offset = self.container.append(SIGNATURE, &signature).await?;
        Ok((Extent { offset, length: signature.len() as u64 }, *blake3::hash(&signature).as_bytes()))
    }
}

/// What the TRAILER keeps of a slot: BLAKE3 of the two contents, one after the other.
pub(crate) fn slot_hash(key: &[u8], padding: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(key).update(padding).finalize().as_bytes()
}
