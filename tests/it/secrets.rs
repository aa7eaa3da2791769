//! A password reaches no command line, no log, no message, and no file that is not encrypted.

use std::collections::BTreeSet;
use std::path::Path;

use pacharc_sample::bucket::Directory;
use pacharc_sample::cluster::{self, Options};
use pacharc_sample::postgres::{self, TempServer};
use std::sync::Arc;

use crate::support::program::{Desk, Running, words};

const PASSWORD: &str = "plantedPassword-7c1f";

/// The command lines of all processes that are not the test's own.
fn command_lines() -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

fn contains(path: &Path, text: &[u8]) -> bool {
    std::fs::read(path).unwrap().windows(text.len()).any(|window| window == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_nowhere() {
    let hba = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let options = postgres::Options {
        files: vec![("pg_hba.conf".into(), hba.into())],
        settings: vec![("log_statement".into(), "all".into())],
        ..postgres::Options::default()
    };
    let Some(server) = TempServer::start_or_skip(&options).unwrap() else { return };
    let to = TempServer::start(&options).unwrap();
    let desk = Desk::new();
    let bucket = Arc::new(Directory::new(desk.path("source")));
    cluster::make(&server.url("postgres"), bucket, &Options { objects: 20, jobs: 2000, ..Options::default() })
        .await
        .unwrap();
    let role = format!("CREATE ROLE carrier SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    for server in [&server, &to] {
        server.psql("postgres", &format!("SET log_statement = none; {role}")).unwrap();
    }
    let with_password = |url: String| url.replace("carrier@", &format!("carrier:{PASSWORD}@"));
    let (from, target) =
        (with_password(server.url_as("carrier", "postgres")), with_password(to.url_as("carrier", "postgres")));
    let backup =
        desk.backup_args(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &["-vvv", "--json-file", "e1"]);
    let bucket = desk.bucket("target");
    let restore = Desk::restore_args("c.pacharc", &words(&["--bucket", &bucket]), &["-vvv", "--json-file", "e2"]);
    let again = desk.backup_args(&words(&["--bucket", &desk.bucket("source")]), "e.pacharc", &["-vvv"]);
    let mut lines = BTreeSet::new();
    let mut said = Vec::new();
    // One by PACHARC_POSTGRES, one by PGPASSWORD, one in the configuration file.
    std::fs::write(desk.path("config.toml"), format!("postgres = \"{target}\"\n")).unwrap();
    for (args, way) in [(again, "environment"), (backup, "PGPASSWORD"), (restore, "file")] {
        let mut command = desk.command(args);
        match way {
            "environment" => command.env("PACHARC_POSTGRES", &from),
            "PGPASSWORD" => {
                command.env("PACHARC_POSTGRES", server.url_as("carrier", "postgres")).env("PGPASSWORD", PASSWORD)
            }
            _ => command.args(["--config", "config.toml"]),
        };
        let mut running = Running::start(&mut command);
        while !running.has_ended() {
            lines.extend(command_lines());
        }
        let run = running.finish().code(0);
        said.push(run.stderr.clone());
        said.push(run.text());
    }
    assert!(lines.iter().any(|line| line.contains("pg_dump")), "no child was seen");
    // A wrong one, too, is not repeated.
    let mut wrong =
        desk.command(desk.backup_args(&words(&["--bucket", &desk.bucket("source")]), "d.pacharc", &["-vvv"]));
    wrong.env("PACHARC_POSTGRES", from.replace("7c1f", "7c1f-wrong"));
    said.push(Running::start(&mut wrong).finish().code(6).advises().stderr.clone());

    for line in lines {
        assert!(!line.contains(PASSWORD), "a command line: {line}");
    }
    for text in said {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    for file in ["e1", "e2", "c.pacharc"] {
        assert!(!contains(&desk.path(file), PASSWORD.as_bytes()), "{file}");
    }
    assert!(!server.log().contains(PASSWORD) && !to.log().contains(PASSWORD));
    desk.run(["extract", "c.pacharc", "database", "--identity", "key.txt", "-o", "out"]).code(0);
    let globals = std::process::Command::new("grep").args(["-r", PASSWORD, "out"]).current_dir(desk.folder()).output();
    assert!(globals.unwrap().stdout.is_empty(), "roles are kept without their passwords");
}
