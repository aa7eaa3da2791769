//! What is left of a damaged bundle comes out byte for byte, what is not is named, and the exit code says 3.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pacharc_format::Entry;
use serde_json::Value;

use crate::support::crafted::{Crafted, craft, craft_of};
use crate::support::outer::{Place, places};
use crate::support::program::{Desk, Run};

const ALL: [&str; 3] = ["cluster", "database", "objects"];

struct Rescue {
    files: BTreeMap<String, Vec<u8>>,
    named: BTreeSet<String>,
    damage: Vec<String>,
    run: Run,
}

/// The files below `folder`, by their paths in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn rescue(desk: &Desk, bundle: &[u8]) -> Rescue {
    fs::write(desk.path("bad.pacharc"), bundle).unwrap();
    let more = ["-o", "out", "--identity", "key.txt", "--json"];
    let run = desk.run([&["extract", "--keep-going", "bad.pacharc"][..], &ALL, &more].concat());
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let files = files(&desk.path("out"));
    fs::remove_dir_all(desk.path("out")).ok();
    let finished = run.text().lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()).unwrap();
    let texts = |list: &str, field: &str| -> Vec<String> {
        let list = finished["outcome"][list].as_array().cloned().unwrap_or_default();
        list.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    let (named, damage) = (texts("lost", "path").into_iter().collect(), texts("damage", "entry"));
    Rescue { files, named, damage, run }
}

/// The rescue from `bundle` gives every file but `lost`, names these, and ends with `code`.
#[track_caller]
fn expect(desk: &Desk, original: &Crafted, what: &str, bundle: &[u8], lost: &BTreeSet<String>, code: i32) -> Rescue {
    let found = rescue(desk, bundle);
    let stderr = &found.run.stderr;
    assert_eq!(found.run.status.code(), Some(code), "{what}: {stderr}");
    for (path, bytes) in &original.files {
        match found.files.get(path) {
            Some(found) => assert!(found == bytes, "{what}: {path} has other bytes"),
            None => assert!(lost.contains(path), "{what}: {path} is undamaged and did not come out: {stderr}"),
        }
    }
    assert!(found.files.keys().all(|path| original.files.contains_key(path)), "{what}: {:?}", found.files.keys());
    for path in lost {
        assert!(found.named.contains(path), "{what}: {path} is not named: {stderr}");
        assert!(!found.files.contains_key(path), "{what}: {path} is named, and there");
    }
    assert!(desk.leftovers().is_empty());
    found
}

/// What a segment costs: the files that do not come out when it alone is lost. Where the file must be walked, an object in
/// pieces is lost with the entry that begins it, too.
fn costs(desk: &Desk, original: &Crafted, is_walked: bool) -> BTreeMap<String, BTreeSet<String>> {
    let mut costs = BTreeMap::new();
    for place in segments(&original.bundle) {
        let mut bundle = original.bundle.clone();
        bundle[place.middle()] ^= 1;
        bundle.truncate(bundle.len() - usize::from(is_walked));
        let found = rescue(desk, &bundle);
        let lost: BTreeSet<String> =
            original.files.keys().filter(|path| !found.files.contains_key(*path)).cloned().collect();
        let is_whole = lost.is_empty() && !is_walked;
        assert_eq!(found.run.status.code(), Some(if is_whole { 0 } else { 3 }), "{}", found.run.stderr);
        assert!(found.damage.contains(&place.name) || !is_walked, "{:?}", found.damage);
        costs.insert(place.name, lost);
    }
    costs
}

fn segments(bundle: &[u8]) -> Vec<Place> {
    places(bundle).into_iter().filter(|place| place.name.starts_with("data/")).collect()
}

async fn original(desk: &Desk) -> Crafted {
    let original = craft(&desk.recipient, 1).await;
    assert!(segments(&original.bundle).len() > 8);
    original
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_bundle_is_extracted_as_ever() {
    let desk = Desk::new();
    let original = original(&desk).await;
    let found = expect(&desk, &original, "whole", &original.bundle, &BTreeSet::new(), 0);
    assert!(found.damage.is_empty());
    let more = ["--identity", "key.txt", "-o"];
    let absent = ["extract", "--keep-going", "bad.pacharc", "objects/absent"];
    desk.run([&absent[..], &more, &["out"]].concat()).code(2).says("objects/absent");
    desk.run([&absent[..], &more, &["-"]].concat()).code(2).says("--keep-going");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_segment_costs_what_lies_in_it() {
    let desk = Desk::new();
    let original = original(&desk).await;
    let (costs, walked) = (costs(&desk, &original, false), costs(&desk, &original, true));
    // Each file is lost with one segment, an object in pieces with each that has one of them.
    let all: BTreeSet<&String> = costs.values().flatten().collect();
    assert_eq!(all, original.files.keys().collect());
    assert!(costs.values().filter(|lost| lost.contains("objects/other/large")).count() >= 2, "{costs:?}");
    for place in segments(&original.bundle) {
        let lost = &costs[&place.name];
        assert!(lost.len() < 8, "{lost:?}");
        let what = |damage| format!("{} {damage}", place.name);
        let mut zeroed = original.bundle.clone();
        zeroed[place.header..place.middle()].fill(0);
        expect(&desk, &original, &what("zeroed"), &zeroed, lost, if lost.is_empty() { 0 } else { 3 });
        let dropped = [&original.bundle[..place.header], &original.bundle[place.end()..]].concat();
        let found = expect(&desk, &original, &what("dropped"), &dropped, &walked[&place.name], 3);
        assert!(
            found.damage.iter().any(|entry| entry.get(..13).is_some_and(|name| place.name.starts_with(name))),
            "{:?}",
            found.damage
        );
        let mut header = original.bundle.clone();
        header[place.header + 3] ^= 1;
        expect(&desk, &original, &what("without its header"), &header, &BTreeSet::new(), 0);
    }
}

/// What cannot be found by the catalog is found by walking.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_entries_cost_nothing() {
    let desk = Desk::new();
    let original = original(&desk).await;
    for place in places(&original.bundle) {
        if place.name.starts_with("data/") {
            continue;
        }
        for (at, what) in [(place.header + 3, "header"), (place.middle(), "content")] {
            let mut bundle = original.bundle.clone();
            bundle[at] ^= 1;
            let found = rescue(&desk, &bundle);
            let code = found.run.status.code();
            // Exit code 0 where the catalog led everywhere without it.
            assert!(matches!(code, Some(0 | 3)), "{} {what}: {code:?} {}", place.name, found.run.stderr);
            assert!(found.files == original.files, "{} {what}: {:?}", place.name, found.run.stderr);
            assert!(found.named.is_empty(), "{} {what}: {:?}", place.name, found.named);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_bundle_gives_what_came_before_the_cut() {
    let desk = Desk::new();
    let original = original(&desk).await;
    let costs = costs(&desk, &original, true);
    let segments = segments(&original.bundle);
    let mut cuts: BTreeSet<usize> = (segments[0].header..original.bundle.len()).step_by(1777).collect();
    cuts.extend([original.bundle.len() - 1, original.bundle.len() - 1024, original.bundle.len() - 1537]);
    for cut in cuts {
        let behind = segments.iter().filter(|place| place.content.end > cut);
        let mut lost: BTreeSet<&String> = behind.clone().flat_map(|place| &costs[&place.name]).collect();
        // Its end may lie behind the cut, where no shard tells what that said.
        let large = "objects/other/large".to_owned();
        if behind.count() > 0 {
            lost.insert(&large);
        }
        let found = rescue(&desk, &original.bundle[..cut]);
        let (code, stderr) = (found.run.status.code(), &found.run.stderr);
        assert_eq!(code, Some(3), "cut at {cut}: {stderr}");
        for (path, bytes) in &original.files {
            match found.files.get(path) {
                Some(found) => assert!(found == bytes, "cut at {cut}: {path}"),
                None => assert!(lost.contains(path), "cut at {cut}: {path} came before it: {stderr}"),
            }
        }
        assert!(!found.damage.is_empty(), "cut at {cut}: {stderr}");
        assert!(desk.leftovers().is_empty());
    }
    // Before the key there is nothing.
    let run = rescue(&desk, &original.bundle[..3000]).run;
    assert_eq!(run.status.code(), Some(3), "{}", run.stderr);
}

/// The catalog can be read, and knows nothing of a slice.
#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_the_catalog_lacks_costs_its_object_alone() {
    let desk = Desk::new();
    let lose = |entries: &mut Vec<Entry>| entries.retain(|entry| entry.path != "pieces/0/00000001");
    let original = craft_of(&desk.recipient, 1, lose, |_| ()).await;
    let large = "objects/other/large";
    let found = expect(&desk, &original, "a slice", &original.bundle, &BTreeSet::from([large.to_owned()]), 3);
    found.run.says("the catalog lacks its slice pieces/0/00000001");
    let extract = ["extract", "bad.pacharc", "--identity", "key.txt", "-o", "out", large];
    desk.run(extract).code(3).says("the catalog lacks its slice pieces/0/00000001").advises();
    assert!(!desk.path("out").join(large).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_has_the_name_that_people_know() {
    let desk = Desk::new();
    let original = original(&desk).await;
    let costs = costs(&desk, &original, true);
    let path = "database/pachyderm/attempt-1/data/00012/00000000";
    let (segment, _) = costs.iter().find(|(_, lost)| lost.contains(path)).unwrap();
    let place = segments(&original.bundle).into_iter().find(|place| place.name == *segment).unwrap();
    let mut bundle = original.bundle.clone();
    bundle[place.middle()] ^= 1;
    fs::write(desk.path("bad.pacharc"), bundle).unwrap();
    let extract = ["extract", "bad.pacharc", "--identity", "key.txt", "-o", "out", "database"];
    desk.run(extract).code(3).says("--keep-going");
    fs::remove_dir_all(desk.path("out")).ok();
    let told = desk.run([&extract[..], &["--keep-going"]].concat()).code(3);
    told.says(path).says("rows of table pfs.commits of database pachyderm").says(segment);
    // Verify tells the same, also where it cannot read on in one pass.
    let verify = || desk.run(["verify", "bad.pacharc", "--identity", "key.txt"]).code(3);
    verify().says("rows of table pfs.commits of database pachyderm").says(&place.content.start.to_string());
    let mut bundle = fs::read(desk.path("bad.pacharc")).unwrap();
    bundle[segments(&original.bundle)[0].header + 5] ^= 1;
    fs::write(desk.path("bad.pacharc"), &bundle).unwrap();
    verify().says("rows of table pfs.commits of database pachyderm").says(&place.content.start.to_string());
    fs::write(desk.path("bad.pacharc"), &bundle[..place.middle()]).unwrap();
    verify().says("torn");
    desk.run(["verify", "bad.pacharc"]).code(3);
}
