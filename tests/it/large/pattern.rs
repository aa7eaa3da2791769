//! Bytes of any length that do not compress and need not be kept to be compared: each block tells its place.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt};

const BLOCK: usize = 1 << 20;

/// `size` bytes made of `seed`.
#[derive(Clone, Copy)]
pub struct Pattern {
    pub seed: u64,
    pub size: u64,
}

impl Pattern {
    /// The blocks, one after the other; all are of one size but the last.
    fn blocks(self) -> impl Iterator<Item = Vec<u8>> {
        let mut block = vec![0; BLOCK];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).finalize_xof().fill(&mut block);
        (0..self.size.div_ceil(BLOCK as u64)).map(move |number| {
            block[..8].copy_from_slice(&number.to_le_bytes());
            let left = self.size - number * BLOCK as u64;
            block[..usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)].to_vec()
        })
    }

    /// Makes a file of it.
    pub fn write(self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = BufWriter::new(File::create(path).unwrap());
        self.blocks().for_each(|block| file.write_all(&block).unwrap());
        file.flush().unwrap();
    }

    /// Reads to the end, and panics where anything differs.
    pub async fn assert_is(self, mut reader: impl AsyncRead + Unpin) {
        let mut found = Vec::new();
        for (number, block) in self.blocks().enumerate() {
            found.clear();
            (&mut reader).take(block.len() as u64).read_to_end(&mut found).await.unwrap();
            assert!(found == block, "block {number} of {self:?} differs");
        }
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "more than {self:?}");
    }

    pub async fn assert_is_file(self, path: &Path) {
        let mut file = tokio::fs::File::open(path).await.unwrap();
        file.set_max_buf_size(BLOCK);
        self.assert_is(file).await;
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of seed {}", self.size, self.seed)
    }
}
