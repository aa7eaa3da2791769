//! Every damage to every kind of entry, under every command: nothing is restored wrong, and nothing broken called sound.
//!
//! The tables in `docs/reliability.md` are written here, with `UPDATE_DOCS=1`.

mod commands;
mod damages;
mod table;
mod target;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use age::x25519;
use pacharc_sample::postgres::TempServer;

use crate::round_trip::{fixture, recorded};
use crate::support::cluster::Cluster;
use crate::support::crafted::craft;
use crate::support::outer::{Place, kinds, places};
use crate::support::page::keep;
use crate::support::program::{Desk, words};
use commands::{Given, Site, word};
use damages::{Damaged, all};
use table::Tables;
use target::Target;

/// What reads a bundle of every kind of entry.
const OF_ANY: [&str; 9] = [
    "verify, no key",
    "verify --expect-id",
    "verify, key",
    "list",
    "inspect",
    "extract",
    "extract --keep-going",
    "plan restore",
    "restore",
];

/// The levels of a proof, of which the last ones want a dump that PostgreSQL takes; and such a restore.
const OF_A_CLUSTER: [&str; 5] =
    ["verify, no key", "verify, key", "verify --level closed", "verify --level restore", "restore to PostgreSQL"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_wrong_and_nothing_broken_called_sound() {
    let desk = Desk::new();
    // Sealed files differ by some bytes each time.
    let good = loop {
        let bundle = craft(&desk.recipient, 1).await.bundle;
        if has_padding(&bundle) {
            break bundle;
        }
    };
    let other = loop {
        let bundle = craft(&desk.recipient, 2).await.bundle;
        if is_of_the_same_size(&bundle, &good) {
            break bundle;
        }
    };
    let site = |folder: &Path, id| Site { desk: Desk::at(folder), id, target: None };
    fs::write(desk.path("x.pacharc"), &other).unwrap();
    let others = site(desk.folder(), id(&good)).run("extract").files;
    strike("damage matrix", &desk, &OF_ANY, [&good, &other], &others, |folder| site(folder, id(&good)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_broken_is_restored_to_a_server_or_called_closed() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "damaged").await else { return };
    let databases = [cluster.database.as_str(), &cluster.dex];
    // The first two are in the other table.
    let commands = &OF_A_CLUSTER[2..];
    strike_backups("damage matrix of a backup", commands, &desk, &cluster.source(), cluster.server, databases);
}

#[test]
#[ignore = "long"]
fn nothing_of_a_real_cluster_is_restored_wrong_or_called_sound() {
    let desk = Desk::new();
    let Some(folder) = fixture() else { return };
    let Some(server) = recorded(&folder) else { return };
    let bucket = format!("file://{}", folder.join("bucket").display());
    let source = words(&["--postgres", &server.url("postgres"), "--bucket", &bucket]);
    strike_backups("damage matrix of a real cluster", &OF_A_CLUSTER, &desk, &source, &server, ["pachyderm", "dex"]);
}

/// Strikes a backup of `source`, whose databases are on `server`.
fn strike_backups(
    part: &str,
    commands: &[&'static str],
    desk: &Desk,
    source: &[String],
    server: &TempServer,
    databases: [&str; 2],
) {
    let backup = || {
        desk.backup(source, "x.pacharc", &[]).code(0);
        let bundle = fs::read(desk.path("x.pacharc")).unwrap();
        fs::remove_file(desk.path("x.pacharc")).unwrap();
        bundle
    };
    let good = std::iter::repeat_with(backup).find(|bundle| has_padding(bundle)).unwrap();
    let other = std::iter::repeat_with(backup).find(|bundle| is_of_the_same_size(bundle, &good)).unwrap();
    let target = || Some(Target::new(server, databases));
    let site = |folder: &Path| Site { desk: Desk::at(folder), id: id(&good), target: target() };
    // It is of the same cluster: what comes out of it whole is right.
    strike(part, desk, commands, [&good, &other], &BTreeMap::new(), site);
}

/// Whether none of the sealed entries fills its last block: it would be spared the damage to its padding.
fn has_padding(bundle: &[u8]) -> bool {
    let is_full = |place: &Place| place.name.ends_with(".age") && place.content.len().is_multiple_of(512);
    !places(bundle).iter().any(is_full)
}

/// Whether what is spliced from one of these takes as many blocks in the other: if not, it would move what follows.
fn is_of_the_same_size(a: &[u8], b: &[u8]) -> bool {
    let blocks = |bundle: &[u8]| kinds(bundle).into_iter().map(|place| (place.end() - place.header, place.name));
    blocks(a).eq(blocks(b))
}

fn id(bundle: &[u8]) -> String {
    let place = places(bundle).into_iter().find(|place| place.name == "BLAKE3SUMS").unwrap();
    blake3::hash(&bundle[place.content]).to_hex().to_string()
}

fn identity(desk: &Desk) -> x25519::Identity {
    let key = fs::read_to_string(desk.path("key.txt")).unwrap();
    key.lines().find(|line| !line.starts_with('#')).unwrap().parse().unwrap()
}

/// Damages the first of two bundles in every way, gives what comes of it to the commands, and writes or compares a part of the
/// page. `others` are the files of the second bundle.
fn strike(
    part: &str,
    desk: &Desk,
    commands: &[&'static str],
    [good, other]: [&[u8]; 2],
    others: &BTreeMap<String, Vec<u8>>,
    site: impl Fn(&Path) -> Site + Sync,
) {
    let first = site(desk.folder());
    fs::write(desk.path("x.pacharc"), good).unwrap();
    let whole: BTreeMap<&str, Given> = commands.iter().map(|&command| (command, first.run(command))).collect();
    for (command, given) in &whole {
        assert_eq!(given.code, 0, "{command}: {}", given.stderr);
        let writes = command.starts_with("extract") || command.starts_with("restore");
        assert_eq!(!given.files.is_empty(), writes, "{command}");
        let mut databases = given.files.iter().filter(|(path, _)| path.starts_with("database "));
        assert!(databases.all(|(_, word)| word == b"equal"), "{command}");
    }

    let damaged = all(good, other, &identity(desk));
    let (next, problems) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let tables = Mutex::new(Tables::default());
    // A desk for each processor: the names of files are in what commands print.
    std::thread::scope(|scope| {
        for number in 1..=std::thread::available_parallelism().map_or(1, usize::from) {
            let folder = desk.path(&format!("desk-{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::copy(desk.path("key.txt"), folder.join("key.txt")).unwrap();
            let (damaged, whole, next, problems, tables, site) = (&damaged, &whole, &next, &problems, &tables, &site);
            scope.spawn(move || {
                let site = site(&folder);
                while let Some(damaged) = damaged.get(next.fetch_add(1, Ordering::Relaxed)) {
                    fs::write(site.desk.path("x.pacharc"), &damaged.bytes).unwrap();
                    for &command in commands {
                        let given = site.run(command);
                        let word = word(command, damaged, &whole[command], others, &given);
                        if word.chars().any(char::is_uppercase) {
                            let Damaged { damage, entry, .. } = damaged;
                            let Given { code, stdout, stderr, .. } = given;
                            let problem = format!("{damage}, {entry}, {command}: {word}: {code} {stderr} {stdout}");
                            problems.lock().unwrap().push(problem);
                            continue;
                        }
                        tables.lock().unwrap().count(damaged, command, &format!("{} {word}", given.code));
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} cells:\n{}", problems.len(), problems.join("\n"));
    keep(part, &tables.into_inner().unwrap().text(&damaged, commands));
}
