//! Connections of the sample cluster's own work, without TLS.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

/// Connects to the database that the URL names.
///
/// # Errors
/// If the server does not answer or refuses.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
    // It ends with the client; what went wrong, the client's calls tell.
    tokio::spawn(connection);
    Ok(client)
}

/// The same server's URL, with this database's name in its path.
#[must_use]
pub fn with_database(url: &str, database: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let (scheme, rest) = before.split_once("://").unwrap_or(("postgres", before));
    let authority = rest.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{}{query}", percent_encode(database))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        assert_eq!(with_database("postgres://u@h:1/a", "b c"), "postgres://u@h:1/b%20c");
        assert_eq!(with_database("postgresql:///a?host=/tmp", "b"), "postgresql:///b?host=/tmp");
        assert_eq!(with_database("postgres://u@h", "b"), "postgres://u@h/b");
    }
}
