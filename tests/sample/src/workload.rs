//! The workloads of the benches (`benches/README.md`): a bucket and a database of a size and a kind, always the same. They are
//! sample clusters with tables besides, and closed as those are: every object has its row, and its name is its hash.

use crate::bucket::Bucket;
use crate::cluster::{self, Made, quote};
use crate::connection::{connect, with_database};
use anyhow::{Context, Result};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 600 objects of 1 to 20 MB, 4.8 GB in all, and a database of 0.6 GB.
    W1,
    /// 100,000 objects of 2 to 40 KB.
    W2,
    /// A database of 5 GB: one table of 3 GB and fifty small ones; hardly an object.
    W3,
}

/// What a workload is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Workload {
    seed: u64,
    objects: u64,
    sizes: RangeInclusive<u64>,
    /// Rows of pgbench's largest table.
    accounts: u64,
    /// Rows of bytea and jsonb.
    documents: u64,
    /// Rows of the large table.
    rows: u64,
}

impl Workload {
    fn new(kind: Kind, scale: f64) -> Self {
        let none = Self { seed: 1, objects: 10, sizes: 2_000..=40_000, accounts: 0, documents: 0, rows: 0 };
        let full = match kind {
            Kind::W1 => Self {
                // With this one the objects come to 4.8 GB.
                seed: 121,
                objects: 600,
                sizes: 1_000_000..=20_000_000,
                accounts: 4_000_000,
                documents: 40_000,
                ..none
            },
            Kind::W2 => Self { objects: 100_000, ..none },
            Kind::W3 => Self { rows: 9_600_000, ..none },
        };
        // Sizes stay: how many there are is what scales.
        let scaled = |count: u64| match count {
            0 => 0,
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            _ => ((count as f64 * scale) as u64).max(1),
        };
        Self {
            objects: scaled(full.objects),
            accounts: scaled(full.accounts),
            documents: scaled(full.documents),
            rows: scaled(full.rows),
            ..full
        }
    }
}

/// Makes the workload: the database `pachyderm` on the server that the URL names (as a superuser), and the bucket. `scale`
/// multiplies how many objects and rows there are.
///
/// # Errors
/// If the database exists already, or the server or the bucket fails.
pub async fn make(server: &str, bucket: Arc<dyn Bucket>, kind: Kind, scale: f64) -> Result<Made> {
    let Workload { seed, objects, sizes, accounts, documents, rows } = Workload::new(kind, scale);
    let options = cluster::Options { seed, objects, sizes, oddities: false, dex: None, ..cluster::Options::default() };
    let made = cluster::make(server, bucket, &options).await?;

    let client = connect(&with_database(server, &options.database)).await?;
    client.batch_execute(&format!("SET ROLE {}", quote(&options.owner))).await?;
    let settings = [("seed", seed), ("accounts", accounts), ("documents", documents), ("rows", rows)];
    for (name, value) in settings {
        client.execute("SELECT set_config('sample.' || $1, $2, false)", &[&name, &value.to_string()]).await?;
    }
    if accounts > 0 {
        client.batch_execute(include_str!("workload/pgbench.sql")).await.context("pgbench's tables")?;
    }
    if rows > 0 {
        client.batch_execute(include_str!("workload/tables.sql")).await.context("the tables")?;
    }
    // What a first reader would otherwise write, hint bits and statistics, is no part of what is measured.
    client.batch_execute("RESET ROLE").await?;
    client.batch_execute("VACUUM ANALYZE").await?;
    client.batch_execute("CHECKPOINT").await?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Directory;
    use crate::chunk::Chunk;
    use crate::compare;
    use crate::postgres::{Options, TempServer};

    #[test]
    fn the_objects_of_w1_come_to_4_8_gigabytes() {
        let Workload { seed, objects, sizes, .. } = Workload::new(Kind::W1, 1.0);
        let total: u64 = (0..objects).map(|index| Chunk::size(seed, index, &sizes)).sum();
        assert_eq!(total, 4_799_835_441);
    }

    #[tokio::test]
    async fn a_workload_is_closed_and_scales() {
        let Some(server) = TempServer::start_or_skip(&Options::default()).unwrap() else { return };
        let dir = tempfile::tempdir().unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(Directory::new(dir.path().join("bucket")));
        let made = make(&server.url("postgres"), bucket.clone(), Kind::W3, 0.001).await.unwrap();
        assert_eq!(made.live, 1);
        let live = compare::live_keys(&server.url("pachyderm")).await.unwrap();
        assert_eq!(live.into_iter().collect::<Vec<_>>(), bucket.keys().await.unwrap());
        assert_eq!(server.psql("pachyderm", "SELECT count(*) FROM large").unwrap(), "9600");
        assert_eq!(server.psql("pachyderm", "SELECT count(*) FROM small_50").unwrap(), "120");
        assert_eq!(Workload::new(Kind::W1, 0.1).accounts, 400_000);
        assert_eq!(Workload::new(Kind::W1, 0.1).rows, 0);
    }
}
