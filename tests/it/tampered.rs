//! Bundles that somebody has tampered with, and places that somebody has prepared; without a server.

use std::os::unix::fs::symlink;

use crate::support::program::{Desk, words};

fn bundle(desk: &Desk) {
    std::fs::create_dir_all(desk.path("source/notes")).unwrap();
    std::fs::write(desk.path("source/notes/a"), "a").unwrap();
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
}

#[test]
fn a_damaged_key_slot_is_not_called_a_wrong_key() {
    let desk = Desk::new();
    bundle(&desk);
    let mut bytes = std::fs::read(desk.path("c.pacharc")).unwrap();
    let stanza = bytes.windows(10).position(|window| window == b"-> X25519 ").unwrap();
    let body = stanza + bytes[stanza..].iter().position(|&b| b == b'\n').unwrap() + 5;
    bytes[body] = if bytes[body] == b'A' { b'B' } else { b'A' };
    std::fs::write(desk.path("c.pacharc"), bytes).unwrap();
    let verify = ["verify", "c.pacharc", "--identity"];
    desk.run([&verify[..], &["key.txt"]].concat()).code(3).says("damaged").says("bundle.key.age");
    // The second slot serves.
    desk.run(["list", "c.pacharc", "--identity", "key.txt"]).code(0);
    desk.run(["keygen", "-o", "other.txt"]).code(0);
    desk.run([&verify[..], &["other.txt"]].concat()).code(6);
}

#[test]
fn an_extraction_follows_no_link_out_of_its_folder() {
    let desk = Desk::new();
    bundle(&desk);
    std::fs::create_dir_all(desk.path("outside")).unwrap();
    std::fs::create_dir_all(desk.path("out")).unwrap();
    symlink(desk.path("outside"), desk.path("out/objects")).unwrap();
    let extract = ["extract", "c.pacharc", "--identity", "key.txt", "objects", "-o"];
    desk.run([&extract[..], &["out"]].concat()).code(5).says("out/objects");
    assert_eq!(std::fs::read_dir(desk.path("outside")).unwrap().count(), 0);
    // The folder itself may be reached by a link.
    symlink(desk.path("outside"), desk.path("link")).unwrap();
    desk.run([&extract[..], &["link"]].concat()).code(0);
    assert_eq!(std::fs::read(desk.path("outside/objects/other/notes%2Fa")).unwrap(), b"a");
}

#[test]
fn an_entry_that_is_named_twice_comes_once() {
    let desk = Desk::new();
    bundle(&desk);
    let key = ["--identity", "key.txt"];
    let paths = ["objects/other/notes%2Fa", "objects", "objects/"];
    desk.run([&["extract", "c.pacharc", "-o", "out"][..], &key, &paths].concat()).code(0);
    let listed = desk.run([&["list", "c.pacharc"][..], &key, &paths].concat()).code(0).text();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}
