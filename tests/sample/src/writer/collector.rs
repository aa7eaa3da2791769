//! Garbage collection in pachd's order: tracker, tombstone, object, row.

use super::Shared;
use super::transaction::{serializable, session};
use crate::chunk;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Both garbage collections of pachd's master.
pub struct Collector {
    shared: Arc<Shared>,
    client: Client,
}

impl Collector {
    /// Collects until it is told to stop.
    pub async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<()> {
        let mut this = Self { client: session(&shared.url).await?, shared };
        while !stop.is_cancelled() {
            this.collect_expired().await?;
            this.delete_condemned().await?;
            stop.run_until_cancelled(sleep(this.shared.options.gc_period)).await;
        }
        Ok(())
    }

    /// Storage GC: what is expired and not referred to leaves the tracker, in the transaction that condemns its rows.
    async fn collect_expired(&mut self) -> Result<()> {
        const EXPIRED: &str = "SELECT int_id, str_id FROM storage.tracker_objects o WHERE expires_at <= clock_timestamp() \
            AND NOT EXISTS (SELECT FROM storage.tracker_refs WHERE to_id = o.int_id) ORDER BY int_id LIMIT 100";
        const STILL: &str = "DELETE FROM storage.tracker_objects o WHERE int_id = $1 AND expires_at <= clock_timestamp() \
            AND NOT EXISTS (SELECT FROM storage.tracker_refs WHERE to_id = o.int_id)";
        for row in self.client.query(EXPIRED, &[]).await? {
            let (id, name): (i64, String) = (row.get(0), row.get(1));
            let condemned = serializable(&mut self.client, async |transaction| {
                if transaction.execute(STILL, &[&id]).await? == 0 {
                    return Ok(0);
                }
                transaction.execute("DELETE FROM storage.tracker_refs WHERE from_id = $1", &[&id]).await?;
                match name.split_once('/') {
                    Some(("chunk", hex)) => {
                        let condemn =
                            "UPDATE storage.chunk_objects SET tombstone = true WHERE chunk_id = decode($1, 'hex')";
                        transaction.execute(condemn, &[&hex]).await
                    }
                    Some(("fileset", hex)) => {
                        transaction.execute("DELETE FROM storage.filesets WHERE id = $1::text::uuid", &[&hex]).await?;
                        Ok(0)
                    }
                    _ => Ok(0),
                }
            })
            .await?;
            self.shared.tombstoned.fetch_add(condemned, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Chunk GC: the object, then the row.
    async fn delete_condemned(&mut self) -> Result<()> {
        const CONDEMNED: &str =
            "SELECT chunk_id, gen FROM storage.chunk_objects WHERE tombstone ORDER BY gen LIMIT 100";
        const DELETE: &str = "DELETE FROM storage.chunk_objects WHERE chunk_id = $1 AND gen = $2 AND tombstone";
        for row in self.client.query(CONDEMNED, &[]).await? {
            let (id, generation): (&[u8], i64) = (row.get(0), row.get(1));
            self.shared.bucket.delete(&chunk::key(id.try_into()?, generation)).await?;
            serializable(&mut self.client, async |transaction| transaction.execute(DELETE, &[&id, &generation]).await)
                .await?;
            self.shared.deleted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
