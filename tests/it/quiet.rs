//! Whether anybody else works on the databases, asked of a real server.

use pacharc::database::{Environment, Server, foreign_sessions};

use super::support::postgres::{self, Use as _};

#[tokio::test]
async fn who_works_is_named_and_who_idles_is_not() {
    let Some(postgres) = postgres::start() else { return };
    for name in ["pachyderm", "dex", "other"] {
        postgres.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    postgres.sql("postgres", "CREATE ROLE nobody LOGIN");
    let url = postgres.socket();
    let connect = async |database: &str, application: &str| {
        let environment: Environment = [("PGAPPNAME", application)].into_iter().collect();
        let server = Server::new(Some(&url), true, &environment, None).unwrap();
        server.connect(database).await.unwrap()
    };
    let ours = connect("postgres", "pacharc").await;
    let databases = ["pachyderm", "dex"];
    let foreign = async || foreign_sessions(&ours, &databases).await.unwrap();

    let idle = connect("pachyderm", "pgbouncer").await;
    let elsewhere = connect("other", "psql").await;
    elsewhere.batch_execute("BEGIN").await.unwrap();
    let own = connect("dex", "pacharc").await;
    own.batch_execute("BEGIN").await.unwrap();
    assert_eq!(foreign().await, []);

    idle.batch_execute("BEGIN").await.unwrap();
    let found = foreign().await;
    assert_eq!(found.len(), 1, "{found:?}");
    let one = &found[0];
    assert_eq!((one.database.as_str(), one.role.as_str()), ("pachyderm", "postgres"));
    assert_eq!((one.application.as_str(), one.client.as_str()), ("pgbouncer", "local"));
    assert_eq!(one.state, "idle in transaction");
    idle.batch_execute("ROLLBACK").await.unwrap();

    let busy = connect("dex", "pachd").await;
    let sleeping = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    while foreign().await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(foreign().await[0].state, "active");

    // Another role does not see what these do, but that they are in a transaction; who idles has none.
    let url = url.replace("postgres@", "nobody@");
    let server = Server::new(Some(&url), true, &Environment::default(), None).unwrap();
    let blind = server.connect("postgres").await.unwrap();
    let found = foreign_sessions(&blind, &databases).await.unwrap();
    let seen: Vec<_> = found.iter().map(|session| (session.database.as_str(), session.state.as_str())).collect();
    assert_eq!(seen, [("dex", "in a transaction")], "{found:?}");
    sleeping.abort();
}
