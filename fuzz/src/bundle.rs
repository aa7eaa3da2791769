//! Whole files as bundles: by every reader, with the key and without.

use bytes::Bytes;
use futures::future::BoxFuture;
use pacharc_format::{
    BundleReader, BundleStream, Error, Extent, Found, RangeReader, ReadOptions, SalvageReader, TRAILER, Trailer,
    inspect,
};

use crate::seeds;

struct Memory(Bytes);

impl RangeReader for Memory {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let range = usize::try_from(offset).ok().and_then(|offset| Some((offset, offset.checked_add(length)?)));
        let bytes = range.filter(|(_, end)| *end <= self.0.len()).map(|(offset, end)| self.0.slice(offset..end));
        Box::pin(async move { bytes.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()) })
    }
}

/// Runs a future that waits for blocking threads alone.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("there is no runtime: {error}"),
    }
}

/// Front to back without a key and with it, and from the end.
pub(crate) fn read(bytes: &[u8]) {
    block_on(async {
        let (unlock, temp_dir) = (seeds::unlock(), std::env::temp_dir());
        for unlock in [None, Some(&unlock)] {
            let options = ReadOptions { jobs: 1, memory: 1 << 20, temp_dir: &temp_dir };
            let Ok(mut stream) = BundleStream::open(bytes, options).await else { continue };
            if unlock.is_some_and(|unlock| stream.unlock(unlock).is_err()) {
                continue;
            }
            let (mut is_damaged, mut has_ended) = (false, false);
            while let Ok(Some(found)) = stream.next().await {
                is_damaged |= matches!(found, Found::Damage(_));
                has_ended |= matches!(found, Found::End { .. });
            }
            let is_seed = || seeds::bundles().iter().any(|seed| seed == bytes);
            assert!(!has_ended || is_damaged || unlock.is_none() || is_seed(), "a changed bundle was called sound");
        }
        inspect(&Memory(Bytes::copy_from_slice(bytes))).await.ok();
        let Ok(reader) = BundleReader::open(Memory(Bytes::copy_from_slice(bytes)), &unlock).await else { return };
        reader.check_sums().await.ok();
        reader.signature().await.ok();
        let mut catalog = reader.catalog("");
        while let Ok(Some(lines)) = catalog.next().await {
            for line in lines.iter().filter(|line| line.entry.place.is_some()).take(3) {
                reader.read(&line.entry).await.ok();
            }
        }
    });
}

/// Past what is broken.
pub(crate) fn salvage(bytes: &[u8]) {
    block_on(async {
        let source = Memory(Bytes::copy_from_slice(bytes));
        let mut reader = match SalvageReader::open(source, &seeds::unlock()).await {
            Ok(reader) => reader,
            Err(error) => return assert!(!matches!(error, Error::Read(_)), "a read left the file"),
        };
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// A bundle whose sums are `bytes`: as somebody leaves it who knows no better, and as a forger does, with a TRAILER that fits.
pub(crate) fn with_sums(bytes: &[u8]) {
    let Some(bundle) = seeds::bundles().into_iter().next() else { return };
    let is_sums = |place: &usize| bundle.get(place + 17..).is_some_and(|name| name.starts_with(b"BLAKE3SUMS\0"));
    let Some(at) = (0..bundle.len()).step_by(512).find(is_sums) else { return };
    let Some((before, end)) = bundle.len().checked_sub(2048).map(|place| bundle.split_at(place)) else { return };
    // TRAILER's header and itself; the closing zeros.
    let (header, end) = end.split_at(512);
    let (block, zeros) = end.split_at(TRAILER);
    let Ok(trailer) = Trailer::from_bytes(block, bundle.len() as u64 - 1536) else { return };

    let mut changed = before[..at + 512].to_vec();
    let sums_header = &mut changed[at..];
    sums_header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
    sums_header[148..156].fill(b' ');
    let sum: u32 = sums_header.iter().map(|&byte| u32::from(byte)).sum();
    sums_header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    changed.extend_from_slice(bytes);
    changed.resize(changed.len().next_multiple_of(512), 0);
    changed.extend_from_slice(header);

    let sums = Extent { offset: trailer.sums.offset, length: bytes.len() as u64 };
    let fitting = Trailer { sums, id: *blake3::hash(bytes).as_bytes(), ..trailer.clone() };
    read(&[&changed, block, zeros].concat());
    let forged = [&changed[..], &fitting.to_bytes(), zeros].concat();
    read(&forged);
    block_on(async {
        let Ok(reader) = BundleReader::open(Memory(forged.into()), &seeds::unlock()).await else { return };
        let taken = reader.check_sums().await.is_ok();
        assert_eq!(taken, fitting.id == trailer.id, "whether sums are those that were sealed");
    });
}
