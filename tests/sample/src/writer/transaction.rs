//! Transactions as pachd runs them.

use crate::connection::connect;
use anyhow::{Result, bail};
use rand::Rng;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};

/// How often a transaction is tried again when others got in its way, after a random pause that grows to 50 ms.
const TRANSACTION_ATTEMPTS: u32 = 300;

/// A serializable transaction that others got in the way of; and two that insert the same tracker name at once.
const RETRYABLE: [SqlState; 3] =
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];

/// A session that reads by index: a serializable transaction that reads a whole small table conflicts with all others.
pub async fn session(url: &str) -> Result<Client> {
    let client = connect(url).await?;
    client.batch_execute("SET enable_seqscan = off").await?;
    Ok(client)
}

/// Runs a transaction as pachd does: serializable, and again when it could not be put in a row with others.
pub async fn serializable<T>(
    client: &mut Client,
    work: impl AsyncFn(&Transaction<'_>) -> Result<T, tokio_postgres::Error>,
) -> Result<T> {
    for attempt in 1.. {
        let transaction = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
        let outcome = match work(&transaction).await {
            Ok(value) => transaction.commit().await.map(|()| value),
            Err(error) => transaction.rollback().await.and(Err(error)),
        };
        match outcome {
            Err(error)
                if attempt < TRANSACTION_ATTEMPTS && error.code().is_some_and(|code| RETRYABLE.contains(code)) =>
            {
                let longest = u64::from(attempt.min(50));
                sleep(Duration::from_millis(rand::rng().random_range(0..=longest))).await;
            }
            outcome => return Ok(outcome?),
        }
    }
    bail!("no transaction was begun")
}
