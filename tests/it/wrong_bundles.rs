//! Bundles that are not what they should be: each command says so with its exit code, and nothing is restored.

use std::collections::BTreeSet;

use pacharc_format::manifest::{Manifest, Table};

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::crafted::{Crafted, craft_with};
use crate::support::outer::{Place, kinds, places, resize};
use crate::support::program::{Desk, words};

/// The bundle with another text in one of its entries; sums are as they were.
fn edited(bundle: &[u8], name: &str, from: &str, to: &str) -> Vec<u8> {
    let place = places(bundle).into_iter().find(|place| place.name == name).unwrap();
    let content = String::from_utf8(bundle[place.content.clone()].to_vec()).unwrap();
    assert!(content.contains(from), "{content}");
    let content = content.replace(from, to);
    let mut edited = bundle.to_vec();
    let padded = place.content.start..place.content.end.next_multiple_of(512);
    assert!(content.len() <= padded.len());
    edited[padded.clone()].fill(0);
    edited[padded.start..padded.start + content.len()].copy_from_slice(content.as_bytes());
    resize(&mut edited[place.header..place.header + 512], content.len());
    edited
}

/// A cluster, its bundle in `good.pacharc`, and what commands read.
struct Bench {
    desk: Desk,
    cluster: Cluster,
    bundle: Vec<u8>,
}

impl Bench {
    async fn make(name: &str) -> Option<Self> {
        let desk = Desk::new();
        let cluster = Cluster::small(&desk, name).await?;
        target_server()?;
        desk.backup(&cluster.source(), "good.pacharc", &[]).code(0);
        let bundle = std::fs::read(desk.path("good.pacharc")).unwrap();
        Some(Self { desk, cluster, bundle })
    }

    /// The commands that read `file`, by name.
    fn commands(&self, file: &str) -> Vec<(&'static str, Vec<String>)> {
        let key = |args: &[&str]| words(&[args, &["--identity", "key.txt"]].concat());
        vec![
            ("verify", words(&["verify", file])),
            ("verify with a key", key(&["verify", file])),
            ("restore", Desk::restore_args(file, &target(&self.desk.bucket("target")), &[])),
            ("list", key(&["list", file])),
            ("extract", key(&["extract", file, "objects", "database", "-o", "out"])),
        ]
    }

    /// Writes `bytes` as a bundle and runs each command on it; panics unless each ends with `code` and says `text`.
    fn refuse(&self, what: &str, bytes: &[u8], code: i32, text: &str) {
        self.look(what, bytes, |command, run_code, said| {
            assert_eq!(run_code, Some(code), "{what}, {command}: {said}");
            assert!(said.contains(text), "{what}, {command}: {said}");
        });
    }

    fn look(&self, what: &str, bytes: &[u8], check: impl Fn(&str, Option<i32>, &str)) {
        std::fs::write(self.desk.path("bad.pacharc"), bytes).unwrap();
        for (command, args) in self.commands("bad.pacharc") {
            let run = self.desk.run(args);
            check(command, run.status.code(), &run.stderr);
            assert!(!run.stderr.contains("panicked"), "{what}, {command}: {}", run.stderr);
            // A verdict needs no hint; an error does.
            let has_hint = run.has_advice() || !run.stderr.contains("error: ");
            assert!(has_hint, "{what}, {command}: no hint in {}", run.stderr);
        }
        std::fs::remove_dir_all(self.desk.path("out")).ok();
    }

    fn assert_nothing_restored(&self) {
        self.cluster.assert_not_restored();
        assert!(!self.desk.path("target").exists(), "not even an empty folder");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bundle_of_this_version() {
    let Some(bench) = Bench::make("no_bundle").await else { return };
    let good = &bench.bundle;
    bench.refuse("an empty file", b"", 3, "");
    bench.refuse("a text", "not a bundle\n".repeat(500).as_bytes(), 3, "not a pacharc bundle");
    bench.refuse("zeros", &[0; 4096], 3, "");
    bench.refuse("something behind", &[good.as_slice(), b"x"].concat(), 3, "");
    bench.look("two bundles", &[good.as_slice(), good].concat(), |command, code, said| match command {
        // They find the second one's trailer, and what it names is there.
        "list" | "extract" if code == Some(0) => {}
        _ => assert_eq!(code, Some(3), "{command}: {said}"),
    });
    // They read what was sealed, and that is of this version.
    let clear = |what: &str, bytes: &[u8], text: &str| {
        bench.look(what, bytes, |command, code, said| match command {
            "list" | "extract" if code == Some(0) => {}
            _ => assert!(code == Some(5) && said.contains(text), "{what}, {command}: {said}"),
        });
    };
    let format_2 = edited(good, "bundle.json", "\"format\": 1", "\"format\": 2");
    clear("format 2", &format_2, "format 2");
    let feature = edited(good, "bundle.json", "\"required\": []", "\"required\": [\"teleport\"]");
    clear("a required feature", &feature, "teleport");
    // What does not open may be of a version that is not known here.
    let mut torn = feature.clone();
    torn.truncate(feature.len() - 600);
    bench.refuse("a required feature, torn", &torn, 5, "teleport");
    bench.assert_nothing_restored();
    bench.desk.run(["inspect", "bad.pacharc"]).code(5).says("teleport").advises();
    bench.desk.run(["verify", "absent.pacharc"]).code(2).says("absent.pacharc").advises();
    // What was asked for is what the whole one gives.
    bench.desk.run(["verify", "good.pacharc", "--identity", "key.txt"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_at_every_kind_of_place() {
    let Some(bench) = Bench::make("truncated").await else { return };
    let length = bench.bundle.len();
    let mut cuts = BTreeSet::from([1, length - 1, length - 512, length - 1024, length - 1536]);
    for Place { header, content, .. } in kinds(&bench.bundle) {
        cuts.extend([header, header + 100, content.start, (content.start + content.end) / 2, content.end]);
    }
    cuts.remove(&0);
    for cut in cuts {
        bench.refuse(&format!("cut at {cut} of {length}"), &bench.bundle[..cut], 3, "");
    }
    bench.assert_nothing_restored();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_each_kind_of_entry() {
    let Some(bench) = Bench::make("flipped").await else { return };
    let whole: Vec<_> = bench.commands("good.pacharc").into_iter().filter(|(command, _)| *command == "list").collect();
    let whole = bench.desk.run(whole[0].1.clone()).code(0).text();
    for Place { name, header, content } in kinds(&bench.bundle) {
        let padding = (content.end % 512 != 0).then_some(content.end);
        for at in [header + 3, (content.start + content.end) / 2].into_iter().chain(padding) {
            let mut bytes = bench.bundle.clone();
            bytes[at] ^= 0x20;
            bench.look(&name, &bytes, |command, code, said| {
                let what = format!("{name} at {at}, {command}: {said}");
                match command {
                    // What lies elsewhere is no matter to them: then they give what the whole one gives.
                    "list" | "extract" if code == Some(0) => {}
                    _ => assert_eq!(code, Some(3), "{what}"),
                }
            });
            let listed = bench.desk.run(words(&["list", "bad.pacharc", "--identity", "key.txt"]));
            assert!(listed.status.code() != Some(0) || listed.text() == whole, "{name} at {at}");
        }
    }
    bench.assert_nothing_restored();
}

/// Damage behind what was read already: a pipe shows it late, and nothing that came may stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_that_comes_through_a_pipe() {
    let Some(bench) = Bench::make("flipped_pipe").await else { return };
    for Place { name, content, .. } in kinds(&bench.bundle) {
        let mut bytes = bench.bundle.clone();
        bytes[(content.start + content.end) / 2] ^= 0x20;
        std::fs::write(bench.desk.path("bad.pacharc"), bytes).unwrap();
        let bucket = bench.desk.bucket(&format!("target {}", name.replace('/', " ")));
        let mut command = bench.desk.command(Desk::restore_args("-", &target(&bucket), &[]));
        command.stdin(std::fs::File::open(bench.desk.path("bad.pacharc")).unwrap());
        let run = crate::support::program::Running::start(&mut command).finish();
        assert_eq!(run.status.code(), Some(3), "{name}: {}", run.stderr);
        bench.cluster.assert_not_restored();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_key() {
    let Some(bench) = Bench::make("wrong_key").await else { return };
    let desk = &bench.desk;
    desk.run(["keygen", "-o", "other.txt"]).code(0);
    std::fs::write(desk.path("right"), "correct horse\n").unwrap();
    std::fs::write(desk.path("wrong"), "incorrect horse\n").unwrap();
    std::fs::write(desk.path("nothing.txt"), "# no key\n").unwrap();
    let mut with_passphrase = words(&["backup", "-o", "passphrase.pacharc", "--passphrase-file", "right"]);
    with_passphrase.extend(bench.cluster.source());
    desk.run(with_passphrase).code(0);
    desk.run(["verify", "passphrase.pacharc", "--passphrase-file", "right"]).code(0);

    let (good, passphrase) = ("good.pacharc", "passphrase.pacharc");
    let cases: [(&str, &[&str], i32, &str); 8] = [
        (good, &["--identity", "other.txt"], 6, "identities"),
        (good, &["--passphrase-file", "right"], 6, "recipients"),
        (passphrase, &["--passphrase-file", "wrong"], 6, "passphrase"),
        (passphrase, &["--identity", "key.txt"], 6, "passphrase"),
        (good, &["--identity", "absent.txt"], 6, "absent.txt"),
        (good, &["--identity", "nothing.txt"], 6, "nothing.txt"),
        (good, &["--identity", "key.txt", "--expect-id", &"0".repeat(64)], 5, "another bundle"),
        (good, &["--identity", "key.txt", "--not-older-than", "2999-01-01T00:00:00Z"], 5, "2999"),
    ];
    for (bundle, args, code, text) in cases {
        let restore = [&words(&["restore", bundle])[..], &target(&desk.bucket("target"))].concat();
        for command in [words(&["verify", bundle]), restore, words(&["list", bundle])] {
            if command[0] == "list" && args.len() > 2 {
                continue;
            }
            let run = desk.run([&command[..], &words(args)].concat()).code(code).advises();
            assert!(run.stderr.to_lowercase().contains(text), "{command:?} {args:?}: {}", run.stderr);
        }
    }
    bench.assert_nothing_restored();
}

/// Everything is sealed well; what the manifest says of the dump is not what is in it.
#[tokio::test]
async fn a_manifest_that_is_not_what_the_dump_holds() {
    type Lie = (fn(&mut Manifest), &'static str);
    fn table(manifest: &mut Manifest) -> &mut Table {
        &mut manifest.databases[0].tables[0]
    }
    let desk = Desk::new();
    let verify = |level: &'static str| desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", level]);
    let lies: [Lie; 8] = [
        (|manifest| table(manifest).rows = 51, "50 rows where the manifest has 51"),
        (|manifest| table(manifest).bytes += 1, "the size of its rows differs"),
        (|manifest| table(manifest).fingerprint = "0".repeat(64), "the fingerprint of its rows differs"),
        (|manifest| table(manifest).number = 13, "its rows are not in the bundle"),
        (|manifest| manifest.attempt = 2, "its rows are not in the bundle"),
        (|manifest| manifest.attempt = 2, "VALID names another attempt than the manifest"),
        (|manifest| manifest.databases[0].folder = "dex".into(), "pre-data is not in the bundle"),
        (|manifest| manifest.databases[0].folder = "dex".into(), "VALID is not in the bundle"),
    ];
    let write = |crafted: Crafted| std::fs::write(desk.path("c.pacharc"), crafted.bundle).unwrap();
    write(craft_with(&desk.recipient, 1, |_| ()).await);
    verify("contents").code(0);
    for (lie, problem) in lies {
        write(craft_with(&desk.recipient, 1, lie).await);
        for level in ["contents", "closed"] {
            verify(level).code(3).says("damaged").says(problem);
        }
        // Sums are sums.
        verify("sums").code(0);
    }
    write(craft_with(&desk.recipient, 1, |manifest| manifest.databases[0].large_objects.count = 1).await);
    verify("closed").code(3).says("damaged").says("its large objects are not in the bundle");
}
