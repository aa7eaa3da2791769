//! A bundle of which the disk does not give some bytes back: they are damaged, told with their place, and cost what lies there.

use std::path::Path;

use pacharc_sample::bucket::{Bucket as _, Directory};
use pacharc_sample::chunk::Chunk;

use crate::support::crafted::craft;
use crate::support::moments::faulty;
use crate::support::outer::{Place, kinds, places};
use crate::support::program::{Desk, Run, Running, words};

/// Runs it where 4,096 bytes of the bundle, from `sector` on, cannot be read.
fn run(desk: &Desk, library: &Path, sector: usize, args: &[&str]) -> Run {
    let mut command = desk.command(args);
    command.env("LD_PRELOAD", library).env("FAULTY_PATH", "c.pacharc").env("FAULTY_SECTOR", sector.to_string());
    Running::start(&mut command).finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sector_in_a_segment_costs_what_lies_there() {
    let Some(library) = faulty() else { return pacharc_sample::skipped("no C compiler for bad sectors") };
    let desk = Desk::new();
    let source = Directory::new(desk.path("source"));
    let chunks: Vec<Chunk> = (0..8).map(|number| Chunk::generate(1, number, &(3_000_000..=3_000_000))).collect();
    for chunk in &chunks {
        source.put(&chunk.key(1), chunk.stored.clone().into()).await.unwrap();
    }
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
    let bundle = std::fs::read(desk.path("c.pacharc")).unwrap();
    let segments: Vec<Place> = places(&bundle).into_iter().filter(|place| place.name.starts_with("data/")).collect();
    assert_eq!(segments.len(), 3, "{segments:?}");
    let place = &segments[1];
    let run = |args: &[&str]| run(&desk, library, place.middle(), args);

    let told = format!("{} (at byte {}): it cannot be read", place.name, place.content.start);
    run(&["verify", "c.pacharc"]).code(3).says("1 damage found").says(&told);
    let verified = run(&["verify", "c.pacharc", "--identity", "key.txt"]).code(3);
    verified.says("1 damage found").says(&told).says("entries that lie in it: 3;");
    run(&["list", "c.pacharc", "--identity", "key.txt"]).code(0);
    let target = desk.bucket("target");
    run(&["restore", "c.pacharc", "--identity", "key.txt", "--bucket", &target]).code(3).says("it cannot be read");
    assert!(!desk.path("target").exists());
    let extract = ["extract", "c.pacharc", "objects", "--identity", "key.txt", "-o", "out"];
    run(&extract).code(3).says("--keep-going");
    std::fs::remove_dir_all(desk.path("out")).ok();
    run(&[&extract[..], &["--keep-going"]].concat()).code(3);
    let extracted = |chunk: &&Chunk| match std::fs::read(desk.path("out/objects").join(chunk.key(1))) {
        Ok(bytes) => {
            assert!(bytes == chunk.stored);
            true
        }
        Err(_) => false,
    };
    assert_eq!(chunks.iter().filter(extracted).count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_bad_sector_lies_it_is_damage() {
    let Some(library) = faulty() else { return pacharc_sample::skipped("no C compiler for bad sectors") };
    let desk = Desk::new();
    let bundle = craft(&desk.recipient, 1).await.bundle;
    std::fs::write(desk.path("c.pacharc"), &bundle).unwrap();
    for Place { name, header, content } in kinds(&bundle) {
        for sector in [header, content.start] {
            for args in [&["verify", "c.pacharc"][..], &["verify", "c.pacharc", "--identity", "key.txt"]] {
                let run = run(&desk, library, sector, args);
                assert_eq!(run.status.code(), Some(3), "{name} at {sector}, {args:?}: {}", run.stderr);
                run.says("it cannot be read");
            }
        }
    }
}
