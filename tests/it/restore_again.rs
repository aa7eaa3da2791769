//! A restore that is run again: what it finds is its own, or it is not touched.

use crate::support::program::{Desk, words};

/// A bundle of one chunk, some foreign objects and one that is larger than a piece; without databases.
fn bundle(desk: &Desk) {
    let folder = desk.path("source");
    std::fs::create_dir_all(folder.join("notes")).unwrap();
    std::fs::write(folder.join("notes/a"), "ours").unwrap();
    std::fs::write(folder.join("notes/b"), "also ours").unwrap();
    std::fs::write(folder.join("large"), vec![7; 40 << 20]).unwrap();
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
}

#[test]
fn what_somebody_else_wrote_is_never_overwritten_nor_taken_for_ours() {
    for (key, theirs) in [
        ("notes/b", b"too".to_vec()),
        // Of the same size as ours.
        ("notes/b", b"not  ours".to_vec()),
        ("large", vec![8; 40 << 20]),
        ("large", vec![8; 10]),
    ] {
        let desk = Desk::new();
        bundle(&desk);
        let place = desk.path("target").join(key);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, &theirs).unwrap();
        let target = words(&["--bucket", &desk.bucket("target")]);
        // The first run leaves its mark, and the second one goes on where it stopped.
        for run in 1..=2 {
            desk.restore("c.pacharc", &target, &[]).code(5).says("not empty").says(key);
            assert!(std::fs::read(&place).unwrap() == theirs, "{key}, run {run}");
        }
        // What an interrupted run wrote is no obstacle.
        std::fs::remove_file(&place).unwrap();
        desk.restore("c.pacharc", &target, &[]).code(0);
        assert_eq!(std::fs::read(desk.path("target/notes/b")).unwrap(), b"also ours");
        assert!(std::fs::read(desk.path("target/large")).unwrap() == vec![7; 40 << 20]);
        assert!(!desk.path("target/pacharc.restoring").exists());
    }
}
