//! Connections to a real server: TLS in its kinds, passwords, service files, sockets, wrong inputs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pacharc::database::{Environment, Error, SESSION_SETTINGS, Server, Session, Tools};
use pacharc::failure::{Class, Explain};
use pacharc_sample::postgres::TempServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::authority::Authority;
use crate::support::postgres::{self, Use as _, run};
use crate::support::program::wait_until;

impl Authority {
    /// A server that takes TLS alone on TCP, and shows the certificate `name`.
    fn server(&self, name: &str) -> Option<TempServer> {
        let hba = "hostssl all certified all cert\nhostssl all all all scram-sha-256";
        let settings = [("ssl", "on"), ("ssl_ca_file", "ca.crt"), ("password_encryption", "scram-sha-256")];
        let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
        let files = [("ca.crt", "ca.crt"), (&crt, "server.crt"), (&key, "server.key")];
        let files = files.map(|(from, to)| (to.to_owned(), std::fs::read(self.path(from)).unwrap()));
        let server = postgres::start_with(hba, &settings, files.to_vec())?;
        server.sql("postgres", "CREATE ROLE walt LOGIN PASSWORD 'pass:word'; CREATE ROLE certified LOGIN");
        Some(server)
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

async fn connect(url: &str, variables: &[(&str, &str)]) -> Result<(Server, Session), Error> {
    let server = Server::new(Some(url), true, &environment(variables), None)?;
    let session = server.connect("postgres").await?;
    Ok((server, session))
}

/// The error, which says its class and its advice and no password.
async fn refused(url: &str, variables: &[(&str, &str)], class: Class) -> Error {
    let error = connect(url, variables).await.expect_err(url);
    assert_eq!(error.class(), class, "{url}: {error:?}");
    assert!(error.advice().is_some(), "{error:?}");
    assert!(!format!("{error} {error:?} {:?}", error.advice()).contains("pass:word"));
    error
}

async fn is_encrypted(session: &Session) -> bool {
    let row = session.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    row.get(0)
}

/// What a child with this environment finds out about its own connection.
fn child(server: &Server, tool: &Path, sql: &str) -> String {
    let mut command = Command::new(tool);
    command.env_clear().envs(server.child_environment("postgres")).args(["-X", "-A", "-t", "-c", sql]);
    run(&mut command).trim().to_owned()
}

#[tokio::test]
async fn tls_checks_what_sslmode_says() {
    let authority = Authority::new();
    let Some(postgres) = authority.server("server") else { return };
    let port = postgres.port();
    let ca = authority.path("ca.crt");
    let other = authority.path("other-ca.crt");
    let password = [("PGPASSWORD", "pass:word")];
    let url = |host: &str, rest: &str| format!("postgres://walt@{host}:{port}/postgres?{rest}");

    let url_full = url("localhost", &format!("sslmode=verify-full&sslrootcert={ca}"));
    let (server, session) = connect(&url_full, &password).await.unwrap();
    assert!(is_encrypted(&session).await);
    let psql = Tools::find_psql(session.version_num(), None).await.unwrap().path;
    assert_eq!(child(&server, &psql, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
    assert!(!format!("{server:?}").contains("pass:word"));

    // The certificate holds `localhost` alone.
    let wrong_name =
        refused(&url("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}")), &password, Class::Unreachable)
            .await;
    assert!(matches!(wrong_name, Error::Certificate { .. }));
    let by_address = url("localhost", &format!("sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1"));
    connect(&by_address, &password).await.unwrap();
    connect(&url("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")), &password).await.unwrap();
    for mode in ["verify-full", "verify-ca", "require"] {
        let url = url("localhost", &format!("sslmode={mode}&sslrootcert={other}"));
        let error = refused(&url, &password, Class::Unreachable).await;
        assert!(matches!(error, Error::Certificate { .. }), "{mode}");
    }
    for mode in ["require", "prefer", "allow"] {
        let (_, session) = connect(&url("127.0.0.1", &format!("sslmode={mode}")), &password).await.expect(mode);
        assert!(is_encrypted(&session).await, "{mode}");
    }
    refused(&url("localhost", "sslmode=disable"), &password, Class::Credentials).await;

    // --ca-file stands in for sslrootcert; the very certificate of the server is trusted too.
    for file in ["ca.crt", "server.crt"] {
        let file = authority.path(file);
        let url = url("localhost", "sslmode=verify-full");
        let server = Server::new(Some(&url), true, &environment(&password), Some(Path::new(&file))).unwrap();
        server.connect("postgres").await.expect(&file);
    }
    refused(&url("localhost", "sslmode=verify-full"), &password, Class::Usage).await;

    // A client certificate, with its key's permissions.
    let certified = format!(
        "postgres://certified@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={ca}&sslcert={}&sslkey={}",
        authority.path("client.crt"),
        authority.path("client.key")
    );
    connect(&certified, &[]).await.unwrap();
    authority.set_mode("client.key", 0o644);
    let error = connect(&certified, &[]).await.unwrap_err();
    assert!(matches!(error, Error::TlsFile { .. }) && error.class() == Class::Usage, "{error:?}");
}

#[tokio::test]
async fn a_common_name_counts_where_there_is_no_other_name() {
    let authority = Authority::new();
    let Some(postgres) = authority.server("common-name") else { return };
    let url = |host| {
        let (port, ca) = (postgres.port(), authority.path("ca.crt"));
        format!("postgres://walt@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={ca}")
    };
    connect(&url("localhost"), &[("PGPASSWORD", "pass:word")]).await.unwrap();
    refused(&url("127.0.0.1"), &[("PGPASSWORD", "pass:word")], Class::Unreachable).await;
}

#[tokio::test]
async fn passwords_come_from_where_libpq_finds_them() {
    let hba = "host all all all scram-sha-256";
    let Some(postgres) = postgres::start_with(hba, &[], Vec::new()) else { return };
    postgres.sql("postgres", "CREATE ROLE walt LOGIN PASSWORD 'pass:word'");
    let home = tempfile::tempdir().unwrap();
    let home_path = home.path().to_str().unwrap();
    let url = format!("postgres://walt@127.0.0.1:{}/postgres", postgres.port());

    let error = refused(&url, &[("HOME", home_path)], Class::Credentials).await;
    assert!(matches!(error, Error::PasswordMissing { .. }), "{error:?}");
    refused(&url, &[("PGPASSWORD", "wrong")], Class::Credentials).await;

    let passfile = home.path().join(".pgpass");
    std::fs::write(&passfile, "127.0.0.1:*:postgres:walt:pass\\:word\n").unwrap();
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (server, session) = connect(&url, &[("HOME", home_path)]).await.unwrap();
    assert_eq!(server.user(), "walt");
    assert_eq!(server.address(), format!("127.0.0.1:{}", postgres.port()));
    let psql = Tools::find_psql(session.version_num(), None).await.unwrap().path;
    assert_eq!(child(&server, &psql, "SELECT current_user"), "walt");

    let service = home.path().join("services");
    let content = format!("[prod]\nhost=127.0.0.1\nport={}\nuser=walt\ndbname=postgres\n", postgres.port());
    std::fs::write(&service, content).unwrap();
    let file = service.to_str().unwrap();
    let variables = [("HOME", home_path), ("PGSERVICEFILE", file), ("PGSERVICE", "prod"), ("PGHOST", "192.0.2.1")];
    let server = Server::new(None, true, &environment(&variables), None).unwrap();
    assert_eq!(server.default_database(), Some("postgres"));
    server.connect("postgres").await.unwrap();

    let secret = format!("postgres://walt:pass%3Aword@127.0.0.1:{}/postgres", postgres.port());
    assert!(matches!(refused(&secret, &[], Class::Usage).await, Error::PasswordOnCommandLine));
    let server = Server::new(None, true, &environment(&[("PACHARC_POSTGRES", &secret)]), None).unwrap();
    server.connect("postgres").await.unwrap();
}

#[tokio::test]
async fn sessions_and_children_have_the_fixed_settings() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql(
        "postgres",
        "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER DATABASE postgres SET search_path = pg_catalog, public;
         ALTER ROLE postgres SET statement_timeout = '1s'; ALTER ROLE postgres SET bytea_output = 'escape'",
    );
    let url = format!("{}&options=-c%20DateStyle%3DGerman%20-c%20work_mem%3D5MB", postgres.socket());
    let (server, session) = connect(&url, &[("PATH", "/usr/bin:/bin")]).await.unwrap();
    let psql = Tools::find_psql(session.version_num(), None).await.unwrap().path;
    let shown = |name: &str| format!("SELECT current_setting('{name}')");
    for (name, value) in SESSION_SETTINGS.iter().chain(&[("work_mem", "5MB"), ("application_name", "pacharc")]) {
        let row = session.query_one(&shown(name), &[]).await.unwrap();
        let told: &str = row.get(0);
        let same = |told: &str| match *name {
            "DateStyle" => told.starts_with("ISO"),
            "search_path" => told.is_empty() || told == "\"\"",
            _ => told == *value,
        };
        assert!(same(told), "{name}: {told}");
        let told = child(&server, &psql, &shown(name));
        assert!(same(&told), "{name} of a child: {told}");
    }
    assert!(!session.closed());
    assert!(!session.is_standby());
    postgres
        .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pacharc'");
    assert!(session.batch_execute("SELECT 1").await.is_err());
    let closed = async {
        while !session.closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("a session that was ended is closed");
}

/// Leads to the server on this port, and drops startup options on the way, as PgBouncer does with `ignore_startup_parameters`.
async fn pooler(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let length = usize::try_from(client.read_u32().await.unwrap()).unwrap();
            let mut startup = vec![0; length - 4];
            client.read_exact(&mut startup).await.unwrap();
            // Behind the version, names and values, each with its end.
            let (version, parameters) = startup.split_at(4);
            let mut words: Vec<&[u8]> = parameters.split(|&byte| byte == 0).collect();
            let options = words.iter().position(|word| *word == b"options").unwrap();
            words.drain(options..options + 2);
            let startup = [version, &words.join(&0_u8)[..]].concat();
            server.write_u32(u32::try_from(startup.len() + 4).unwrap()).await.unwrap();
            server.write_all(&startup).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

#[tokio::test]
async fn a_pooler_that_drops_our_settings_is_refused() {
    let Some(postgres) = postgres::start_with("host all all all trust", &[], Vec::new()) else { return };
    let url = |port| format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    connect(&url(postgres.port()), &[]).await.unwrap();
    let error = refused(&url(pooler(postgres.port()).await), &[], Class::Refused).await;
    assert!(matches!(error, Error::SettingDropped { .. }) && !error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_apart() {
    let Some(postgres) = postgres::start() else { return };
    let (server, _) = connect(&postgres.socket(), &[]).await.unwrap();
    let error = server.connect("none").await.unwrap_err();
    assert!(matches!(error, Error::DatabaseMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("none"));

    let closed = "postgres://walt@127.0.0.1:1/postgres";
    let error = refused(closed, &[], Class::Unreachable).await;
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    refused("postgres://walt@host.invalid/postgres", &[], Class::Unreachable).await;

    // No TLS there, and no password needed.
    let Some(plain) = postgres::start_with("host all all all trust", &[], Vec::new()) else { return };
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", plain.port());
    connect(&url, &[]).await.unwrap();
    let error = refused(&format!("{url}?sslmode=require"), &[], Class::Unreachable).await;
    assert!(error.to_string().contains("TLS"), "{error}");

    // Several hosts: the first that answers, and the kind that is wanted.
    let folder = postgres.socket_dir().display();
    let several = format!("host=127.0.0.1,{folder} port=1,{} user=postgres", postgres.port());
    let (server, _) = connect(&several, &[]).await.unwrap();
    assert_eq!(server.address(), format!("{folder}/.s.PGSQL.{}", postgres.port()));
    connect(&format!("{several} target_session_attrs=prefer-standby"), &[]).await.unwrap();
    let error = connect(&format!("{several} target_session_attrs=standby"), &[]).await.unwrap_err();
    assert!(matches!(error, Error::SessionAttributes { .. }), "{error:?}");

    for (url, name) in [
        (format!("{}&requirepeer=x", postgres.socket()), "requirepeer"),
        (format!("{}&sslmode=verify", postgres.socket()), "sslmode"),
        (format!("{}&nonsense=1", postgres.socket()), "nonsense"),
    ] {
        let error = refused(&url, &[], Class::Usage).await;
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://walt@{}/x?connect_timeout=1", listener.local_addr().unwrap());
    let error = refused(&url, &[], Class::Unreachable).await;
    assert!(matches!(error, Error::Timeout { seconds: 1, .. }), "{error:?}");
    assert!(error.is_transient());
}

/// What is idle for long is cut off by proxies: a session says something now and then, in a transaction, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_says_something_now_and_then() {
    let Some(postgres) = postgres::start() else { return };
    let server = Server::new(Some(&postgres.socket()), true, &Environment::of_process(), None).unwrap();
    let session = server.connect("postgres").await.unwrap();
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    let changed = || {
        let sql = "SELECT extract(epoch FROM state_change) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        postgres.sql("postgres", sql)
    };
    let before = changed();
    assert!(!before.trim().is_empty());
    wait_until("the session has said something", || changed() != before);
    session.batch_execute("COMMIT").await.unwrap();
}

/// A server that counts or sorts writes nothing, and does not notice that its client is gone: its locks would stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_with_its_session() {
    let authority = Authority::new();
    let Some(postgres) = authority.server("server") else { return };
    let (port, ca) = (postgres.port(), authority.path("ca.crt"));
    let tls = format!("postgres://walt@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={ca}");
    let running = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()";
        postgres.sql("postgres", sql).trim().to_owned()
    };
    for url in [postgres.socket(), tls] {
        let (_, session) = connect(&url, &[("PGPASSWORD", "pass:word")]).await.unwrap();
        if session.version_num() >= 140_000 {
            let shown = "SELECT current_setting('client_connection_check_interval')";
            assert_eq!(session.query_one(shown, &[]).await.unwrap().get::<_, &str>(0), "10s");
            // It is not to find out by itself.
            session.batch_execute("SET client_connection_check_interval = 0").await.unwrap();
        }
        let asked = session.batch_execute("SELECT pg_sleep(600)");
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
        wait_until("the query runs", || running() == "1");
        drop(session);
        wait_until("the query is cancelled", || running() == "0");
    }
}
