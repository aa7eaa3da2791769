//! Names that a terminal would obey: whoever may name a database or an object must not write on the operator's screen.

use pacharc_sample::postgres::psql;

use crate::support::cluster::{source_server, target_server};
use crate::support::program::{Desk, Run, words};

/// Clears the screen, turns the direction of what follows, and looks like a line of the report's own.
const HOSTILE: &str = "x\u{1b}[2J\u{202e}\nclosed: all";
const SHOWN: &str = "x\\u{1b}[2J\\u{202e} closed: all";

#[track_caller]
fn assert_harmless(run: &Run) {
    for text in [&run.stderr, &run.text()] {
        let hidden = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(hidden, None, "{text}");
        assert!(!text.lines().any(|line| line.starts_with("closed: all")), "{text}");
    }
}

#[test]
fn a_database_cannot_write_on_the_screen() {
    let (Some(from), Some(to)) = (source_server(), target_server()) else { return };
    let desk = Desk::new();
    from.psql("postgres", &format!("CREATE DATABASE \"{HOSTILE}\"")).unwrap();
    let source = words(&["--postgres", &from.url("postgres"), "--database", HOSTILE]);
    let target = words(&["--postgres", &to.url("postgres")]);
    let identity = ["--identity", "key.txt"];
    let with_key = |command: &[&str]| desk.run([command, &identity].concat());

    let planned = desk.run([words(&["plan"]), source.clone()].concat()).code(0);
    assert!(planned.text().contains(SHOWN), "{}", planned.text());
    assert_harmless(&planned);
    let backed_up = desk.backup(&source, "c.pacharc", &["-vvv"]).code(0).says(SHOWN);
    assert_harmless(&backed_up);
    let inspected = with_key(&["inspect", "c.pacharc"]).code(0);
    assert!(inspected.text().contains(SHOWN), "{}", inspected.text());
    for run in [inspected, with_key(&["list", "c.pacharc"]).code(0), with_key(&["verify", "c.pacharc"]).code(0)] {
        assert_harmless(&run);
    }
    let restored = desk.restore("c.pacharc", &target, &[]).code(0).says(SHOWN);
    assert_harmless(&restored);
    let refused = desk.restore("c.pacharc", &words(&["--postgres", &from.url("postgres")]), &[]).code(5).says(SHOWN);
    assert_harmless(&refused);
    for server in [from, to] {
        psql(&server.url("postgres"), &format!("DROP DATABASE \"{HOSTILE}\"")).unwrap();
    }

    // Programs are told the name as it is.
    let json = with_key(&["inspect", "c.pacharc", "--json"]).code(0).text();
    let finished: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(finished["outcome"]["manifest"]["databases"][0]["name"], HOSTILE);
}

#[test]
fn a_key_cannot_write_on_the_screen() {
    let desk = Desk::new();
    // As gocloud writes such a key into a directory.
    let file = HOSTILE.replace('\u{1b}', "__0x1b__").replace('\n', "__0xa__");
    for (folder, name) in [("source", "a"), ("target", &file)] {
        std::fs::create_dir_all(desk.path(folder).join("chunk")).unwrap();
        std::fs::write(desk.path(folder).join("chunk").join(name), "").unwrap();
    }
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
    let refused = desk.restore("c.pacharc", &words(&["--bucket", &desk.bucket("target")]), &[]).code(5);
    assert_harmless(&refused.says("is not empty: it holds chunk/x").says("[2J"));
}
