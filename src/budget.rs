//! How the memory that a run may take is shared out (`--max-memory`, the process's peak resident size).

/// What the program itself takes: code, stacks, connections, TLS, the allocator's slack.
const BASE: u64 = 80 << 20;
/// Less than this cannot be shared out.
const LEAST: u64 = 32 << 20;
/// The largest entry and the largest piece of an object, however much memory there is.
const PIECE_MOST: u64 = 32 << 20;

/// From here on there is room for huge pages: what is small takes up more of them than it needs.
const ROOMY: u64 = 256 << 20;

/// Does without huge pages, which the allocator asks for, where a run may take little memory. They spare a fault for each buffer;
/// but small things lie scattered over them, and each counts as a whole: 155 MiB instead of 88 with 100,000 small objects
/// (`docs/performance.md`).
pub fn settle_pages(max_memory: u64) {
    #[cfg(target_os = "linux")]
    if max_memory < ROOMY
        && let Err(error) = rustix::thread::disable_transparent_huge_pages(true)
    {
        tracing::debug!(%error, "huge pages cannot be done without");
    }
}

/// Bytes for each part of the pipeline. A backup takes `feed` and `sealing`, and may take `upload`; a restore takes `read_ahead`,
/// `write` and `upload`: either way no more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What is read and not yet sealed, all producers together.
    pub feed: usize,
    /// Segments that are being sealed, or are sealed and not yet written.
    pub sealing: usize,
    /// One entry.
    pub piece_limit: usize,
    /// A segment is sealed when it has about so many.
    pub segment_target: usize,
    /// Segments that a reader holds at a time, sealed and opened.
    pub read_ahead: usize,
    /// The same where nothing is written into a bucket.
    pub read_alone: usize,
    /// Of that, rows that are hashed apart.
    pub rows: usize,
    /// Objects that are on their way into a bucket.
    pub write: usize,
    /// Parts of large objects on their way into a bucket, all together.
    pub upload: usize,
    /// What one sort holds before it spills.
    pub spool: usize,
}

impl Budget {
    /// Shares out `max_memory` bytes.
    #[must_use]
    pub fn new(max_memory: u64) -> Self {
        let usable = max_memory.saturating_sub(BASE).max(LEAST);
        let upload = usable / 6;
        let rest = usable - upload;
        // What is read waits for the network, the proof, and a thread that seals it; what is sealed, for the disk alone.
        let feed = rest / 3 * 2;
        let half = rest / 2;
        let piece_limit = (feed * 3 / 10).min(PIECE_MOST);
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            feed: bytes(feed),
            sealing: bytes(rest - feed),
            piece_limit: bytes(piece_limit),
            segment_target: bytes(piece_limit / 4),
            read_ahead: bytes(half),
            read_alone: bytes(2 * half),
            rows: bytes(half / 4),
            write: bytes(half),
            upload: bytes(upload),
            spool: bytes(usable / 24),
        }
    }

    /// For a restore that loads databases beside the objects, out of the same bundle: what those leave.
    #[must_use]
    pub fn beside_databases(self) -> Self {
        let share = |bytes| bytes / 5 * 3;
        Self { read_ahead: share(self.read_ahead), write: share(self.write), ..self }
    }

    /// What those have: segments of the dump, sealed and opened.
    #[must_use]
    pub fn of_databases(self) -> usize {
        let share = |bytes| bytes / 5 * 2;
        share(self.read_ahead) + share(self.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_segments_and_one_piece_always_fit() {
        for max_memory in [0, 64 << 20, 128 << 20, 256 << 20, 1 << 30, 1 << 40] {
            let Budget { feed, sealing, piece_limit, segment_target, .. } = Budget::new(max_memory);
            assert!(2 * segment_target + piece_limit <= feed, "{max_memory}");
            assert!(segment_target + piece_limit <= sealing, "{max_memory}: the largest segment is sealed");
        }
        assert_eq!(Budget::new(512 << 20).piece_limit, 32 << 20);
    }
}
