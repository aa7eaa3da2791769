//! Signatures: made and checked as minisign makes and checks them, and what somebody can and cannot do who writes to the
//! place of the bundles and knows to whom they are encrypted (`docs/security.md`).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pacharc_sample::skipped;

use crate::support::forge::Outer;
use crate::support::program::{Desk, Run, Running, words};

/// An object's key and bytes that must be seen nowhere without a key.
const PLANTED: [(&str, &str); 3] = [
    ("planted-name-4471/alpha", "planted-content-90210"),
    ("chunk/planted-chunk-name", "second-planted-content"),
    ("planted-third", "x"),
];

/// A desk with a bucket of planted objects, and keys to sign with: `sign.key` and `sign.pub`.
fn desk() -> Desk {
    let desk = Desk::new();
    for (key, content) in PLANTED {
        let path = desk.path("source").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    signing_key(&desk, "sign");
    desk
}

fn signing_key(desk: &Desk, name: &str) {
    desk.run(["keygen", "--sign", "-o", &format!("{name}.key")]).code(0).says("Public key: RW");
    let public = desk.run(["keygen", "-y", &format!("{name}.key")]).code(0).text();
    std::fs::write(desk.path(&format!("{name}.pub")), public).unwrap();
}

fn backup(desk: &Desk, bucket: &str, output: &str, more: &[&str]) -> Run {
    desk.backup(&words(&["--bucket", &desk.bucket(bucket)]), output, more)
}

/// The commands that read `bundle` and demand that `sign.pub` signed it.
fn commands(desk: &Desk, bundle: &str) -> Vec<Vec<String>> {
    let target = desk.bucket("target");
    let key = |args: &[&str]| words(&[args, &["--identity", "key.txt"]].concat());
    vec![
        words(&["verify", bundle]),
        key(&["verify", bundle]),
        key(&["restore", bundle, "--bucket", &target]),
        key(&["list", bundle]),
        key(&["extract", bundle, "objects", "-o", "out"]),
        key(&["extract", "--keep-going", bundle, "objects", "-o", "out2"]),
    ]
}

/// Runs each command on `bundle` with `more`, and asserts its exit code; nothing may have been written.
#[track_caller]
fn refused(desk: &Desk, bundle: &str, more: &[&str], codes: &[i32]) {
    for args in commands(desk, bundle) {
        let run = desk.run([args.clone(), words(more)].concat());
        let code = run.status.code().unwrap();
        assert!(codes.contains(&code), "{bundle}, {args:?}: {code}: {}", run.stderr);
        assert!(run.has_advice() || !run.stderr.contains("error: "), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, b"", "{args:?}");
    }
    let written = ["target", "out", "out2"].map(|name| desk.path(name).exists());
    assert_eq!(written, [false; 3], "{bundle}");
}

const TRUST: [&str; 2] = ["--trusted-key", "sign.pub"];

#[test]
fn a_signed_bundle_is_told_from_any_other() {
    let desk = desk();
    signing_key(&desk, "other");
    backup(&desk, "source", "c.pacharc", &["--sign-key", "sign.key"]).code(0).says("signed by the key");
    for args in commands(&desk, "c.pacharc") {
        desk.run([args, words(&TRUST)].concat()).code(0);
    }
    std::fs::remove_dir_all(desk.path("target")).unwrap();
    std::fs::remove_dir_all(desk.path("out")).unwrap();
    std::fs::remove_dir_all(desk.path("out2")).unwrap();
    desk.run(["verify", "c.pacharc", "--trusted-key", "sign.pub"]).code(0).says("signed by the trusted key");
    desk.run(["verify", "c.pacharc"]).code(0).says("by whom was not asked");
    // One of several is enough; a key needs no file.
    let line = std::fs::read_to_string(desk.path("sign.pub")).unwrap().lines().nth(1).unwrap().to_owned();
    desk.run(["verify", "c.pacharc", "--trusted-key", "other.pub", "--trusted-key", &line]).code(0);
    refused(&desk, "c.pacharc", &["--trusted-key", "other.pub"], &[6]);
    let unsigned = backup(&desk, "source", "unsigned.pacharc", &[]).code(0);
    assert!(!unsigned.stderr.contains("signed by"), "{}", unsigned.stderr);
    refused(&desk, "unsigned.pacharc", &TRUST, &[6]);
    desk.run(["inspect", "unsigned.pacharc"]).code(0);
    // From a pipe what comes would be used before the signature has come.
    for args in [&["restore", "-", "--bucket", &desk.bucket("target")][..], &["list", "-"]] {
        let mut command = desk.command([args, &["--identity", "key.txt"], &TRUST].concat());
        command.stdin(std::fs::File::open(desk.path("c.pacharc")).unwrap());
        Running::start(&mut command).finish().code(2).says("standard input cannot").advises();
    }
    let mut command = desk.command(["verify", "-", "--trusted-key", "other.pub"]);
    command.stdin(std::fs::File::open(desk.path("c.pacharc")).unwrap());
    Running::start(&mut command).finish().code(6);
    assert!(!desk.path("target").exists());
}

#[test]
fn keys_that_cannot_be_used() {
    let desk = desk();
    std::fs::write(desk.path("empty"), "").unwrap();
    backup(&desk, "source", "a.pacharc", &["--sign-key", "sign.pub"]).code(6).says("no secret key").advises();
    backup(&desk, "source", "a.pacharc", &["--sign-key", "key.txt"]).code(6).says("no secret key");
    backup(&desk, "source", "a.pacharc", &["--sign-key", "absent"]).code(6).says("absent");
    backup(&desk, "source", "a.pacharc", &["--sign-password-file", "x"]).code(2);
    assert!(!desk.path("a.pacharc").exists());
    backup(&desk, "source", "a.pacharc", &[]).code(0);
    let verify = |key| desk.run(["verify", "a.pacharc", "--trusted-key", key]);
    verify("sign.key").code(6).says("holds a secret key").advises();
    verify("key.txt").code(6).says("no public key");
    verify("empty").code(6).says("no public key");
    verify("absent").code(2).says("neither a public key").advises();
    desk.run(["keygen", "--sign", "-o", "sign.key"]).code(5).says("sign.key exists");
}

/// What the one can do who has the recipient, writes to the place of the bundles, and may compute all sums anew.
#[test]
fn forgeries_are_refused() {
    let desk = desk();
    signing_key(&desk, "theirs");
    backup(&desk, "source", "ours.pacharc", &["--sign-key", "sign.key"]).code(0);
    std::fs::create_dir_all(desk.path("evil")).unwrap();
    std::fs::write(desk.path("evil/planted-third"), "evil").unwrap();
    let read = |name: &str| Outer::read(&std::fs::read(desk.path(name)).unwrap());
    let write = |name: &str, outer: Outer| std::fs::write(desk.path(name), outer.write()).unwrap();
    let key = ["--identity", "key.txt"];

    // Another bundle in its place: without a trusted key it is as good as ours.
    backup(&desk, "evil", "replaced.pacharc", &[]).code(0);
    desk.run([&["verify", "replaced.pacharc"][..], &key].concat()).code(0);
    refused(&desk, "replaced.pacharc", &TRUST, &[6]);
    backup(&desk, "evil", "resigned.pacharc", &["--sign-key", "theirs.key"]).code(0);
    refused(&desk, "resigned.pacharc", &TRUST, &[6]);

    // Our signature on it.
    let (ours, mut grafted) = (read("ours.pacharc"), read("resigned.pacharc"));
    grafted.sign(ours.signature());
    write("grafted.pacharc", grafted);
    desk.run(["verify", "grafted.pacharc"]).code(0);
    refused(&desk, "grafted.pacharc", &TRUST, &[6]);

    // One segment replaced, with sums that fit: whoever has the key sees it, and a signature shows it to anybody.
    let mut spliced = ours.clone();
    *spliced.entry("data/") = read("replaced.pacharc").entry("data/").clone();
    write("spliced.pacharc", spliced);
    desk.run(["verify", "spliced.pacharc"]).code(0).says("sound");
    desk.run([&["verify", "spliced.pacharc"][..], &key].concat()).code(3);
    refused(&desk, "spliced.pacharc", &TRUST, &[6, 3]);
    desk.run([&["verify", "spliced.pacharc"][..], &TRUST].concat()).code(6).says("forged");

    // Another bundle under our sums and our signature, which names them: they do not fit what lies there.
    let mut dressed = read("replaced.pacharc");
    dressed.sign(ours.signature());
    let sums = ours.clone().entry("BLAKE3SUMS").clone();
    std::fs::write(desk.path("dressed.pacharc"), dressed.write_with(sums)).unwrap();
    refused(&desk, "dressed.pacharc", &TRUST, &[3, 6]);
    // Only the signature makes a reader that goes by the catalog look at the sums.
    desk.run([&["list", "dressed.pacharc"][..], &key].concat()).code(0);

    // The signature taken away, cut short, or filled with something.
    let mut stripped = ours.clone();
    stripped.sign(None);
    write("stripped.pacharc", stripped);
    desk.run([&["verify", "stripped.pacharc"][..], &key].concat()).code(0);
    refused(&desk, "stripped.pacharc", &TRUST, &[6]);
    let whole = ours.signature().unwrap();
    for (name, signature) in
        [("cut", whole[..whole.len() / 2].to_vec()), ("filled", vec![b'A'; 4096]), ("binary", vec![0xff; 300])]
    {
        let (mut outer, name) = (ours.clone(), format!("{name}.pacharc"));
        outer.sign(Some(signature));
        write(&name, outer);
        refused(&desk, &name, &TRUST, &[6]);
    }

    // A byte of the slot's padding counted to its key: all hashes are as they were.
    let mut shifted = ours.clone();
    shifted.entry("PADDING").pop();
    // A key that fills its last block, as one of 512 does, makes this a slot that is too long: refused as well.
    shifted.entry("bundle.key.age").push(0);
    write("shifted.pacharc", shifted);
    desk.run([&["verify", "shifted.pacharc"][..], &TRUST].concat()).code(3);
    let target = desk.bucket("target");
    desk.run([&["restore", "shifted.pacharc"][..], &key, &["--bucket", &target], &TRUST].concat()).code(3);

    // Slots of somebody else's: all that was signed is there, and nobody can open it.
    let mut locked = ours.clone();
    let mut theirs = read("replaced.pacharc");
    // With their padding: age gives each key's file a length of its own.
    for name in ["bundle.key.age", "PADDING", "bundle.key.2.age", "PADDING.2"] {
        locked.entry(name).clone_from(theirs.entry(name));
    }
    write("locked.pacharc", locked);
    desk.run([&["verify", "locked.pacharc"][..], &TRUST].concat()).code(0);
    desk.run([&["verify", "locked.pacharc"][..], &key, &TRUST].concat()).code(3);

    // What is left of a damaged one nobody can be named for.
    let torn = std::fs::read(desk.path("ours.pacharc")).unwrap();
    std::fs::write(desk.path("torn.pacharc"), &torn[..torn.len() - 2048]).unwrap();
    let rescue = [&["extract", "--keep-going", "torn.pacharc", "objects", "-o", "out2"][..], &key].concat();
    desk.run([&rescue[..], &TRUST].concat()).code(6).says("nobody can tell who signed").advises();
    assert!(!desk.path("out2").exists());
    desk.run(rescue).code(3);
}

#[test]
fn an_older_bundle_is_truly_signed() {
    let desk = desk();
    let sign = ["--sign-key", "sign.key", "--json-file", "events"];
    backup(&desk, "source", "old.pacharc", &sign).code(0);
    let midnight = jiff::Timestamp::now().to_string();
    std::thread::sleep(std::time::Duration::from_millis(5));
    backup(&desk, "source", "new.pacharc", &sign).code(0);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    let finished: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let id = finished["outcome"]["id"].as_str().unwrap();
    assert!(finished["outcome"]["signed_by"].is_string(), "{finished}");

    // The old one in the place of the new one.
    let with = |more: &[&str]| [&TRUST[..], more].concat().iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for expectation in [["--expect-id", id], ["--not-older-than", &midnight]] {
        for (bundle, code) in [("new.pacharc", 0), ("old.pacharc", 5)] {
            desk.run([words(&["verify", bundle]), with(&expectation)].concat()).code(code);
            let target = desk.bucket(&format!("target-{code}-{}", expectation[0]));
            let restore = words(&["restore", bundle, "--identity", "key.txt", "--bucket", &target]);
            desk.run([restore, with(&expectation)].concat()).code(code);
            assert_eq!(Path::new(target.strip_prefix("file://").unwrap()).exists(), code == 0);
        }
    }
    desk.run([words(&["verify", "old.pacharc"]), with(&[])].concat()).code(0);
}

#[test]
fn the_clear_parts_tell_nothing_of_what_is_inside() {
    let desk = desk();
    for number in 0..317 {
        std::fs::write(desk.path("source").join(format!("planted-counted-{number}")), number.to_string()).unwrap();
    }
    backup(&desk, "source", "c.pacharc", &["--sign-key", "sign.key"]).code(0);
    let bundle = std::fs::read(desk.path("c.pacharc")).unwrap();
    let mut hidden: Vec<String> = PLANTED
        .iter()
        .flat_map(|(key, content)| [key, content])
        .filter(|text| text.len() > 8)
        .map(|&text| text.to_owned())
        .collect();
    // How many, the bucket, the secret key, and to whom it is encrypted.
    hidden.extend(["planted".into(), desk.bucket("source"), "file://".into(), desk.recipient.clone()]);
    let secret = std::fs::read_to_string(desk.path("sign.key")).unwrap();
    hidden.push(secret.lines().nth(1).unwrap()[20..].to_owned());
    for text in &hidden {
        assert!(!bundle.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    let clear = ["README.txt", "bundle.json", "BLAKE3SUMS", "BLAKE3SUMS.minisig", "TRAILER"];
    let outer = Outer::read(&bundle);
    for (name, content) in &outer.entries {
        let is_sealed = name.ends_with(".age");
        assert!(is_sealed || clear.contains(&name.as_str()) || name.starts_with("PADDING"), "{name}");
        assert_eq!(is_sealed, content.starts_with(b"age-encryption.org/v1\n"), "{name}");
        if ["bundle.json", "BLAKE3SUMS.minisig"].contains(&name.as_str()) {
            // 320 objects, or 317 of them.
            let text = String::from_utf8_lossy(content);
            let numbers = text.split(|c: char| !c.is_ascii_digit());
            assert!(!numbers.into_iter().any(|number| ["317", "320"].contains(&number)), "{text}");
        }
    }
    // Sealed parts hide even whether they are alike: no two have the same sum, and no recipient is named.
    let sums = String::from_utf8(outer.clone().entry("BLAKE3SUMS").clone()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    assert!(sums.lines().all(|line| seen.insert(line[..64].to_owned())), "{sums}");
}

fn minisign(desk: &Desk, args: &[&str], typed: &str) -> Option<bool> {
    let mut command = Command::new("minisign");
    command.args(args).current_dir(desk.folder()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        skipped("minisign is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    Some(child.wait().unwrap().success())
}

/// Takes sums and signature out of a bundle, as the security page tells, and has minisign check them.
fn stock_check(desk: &Desk, bundle: &str, public: &str) -> Option<bool> {
    for file in ["BLAKE3SUMS", "BLAKE3SUMS.minisig"] {
        let mut tar = Command::new("tar");
        tar.args(["-xOf", bundle, "--wildcards", &format!("*/{file}")]).current_dir(desk.folder());
        std::fs::write(desk.path(file), tar.output().unwrap().stdout).unwrap();
    }
    minisign(desk, &["-Vm", "BLAKE3SUMS", "-p", public], "")
}

#[test]
fn minisign_checks_what_pacharc_signed_and_lends_its_keys() {
    let desk = desk();
    backup(&desk, "source", "ours.pacharc", &["--sign-key", "sign.key"]).code(0);
    let Some(holds) = stock_check(&desk, "ours.pacharc", "sign.pub") else { return };
    assert!(holds);
    for (name, args, password) in [("plain", &["-G", "-W"][..], None), ("locked", &["-G"], Some("correct horse"))] {
        let (secret, public) = (format!("{name}.key"), format!("{name}.pub"));
        let typed = password.map(|password| format!("{password}\n{password}\n")).unwrap_or_default();
        assert_eq!(minisign(&desk, &[args, &["-p", &public, "-s", &secret]].concat(), &typed), Some(true));
        let bundle = format!("{name}.pacharc");
        let sign = ["--sign-key", &secret];
        if let Some(password) = password {
            std::fs::write(desk.path("right"), format!("{password}\n")).unwrap();
            std::fs::write(desk.path("wrong"), "incorrect horse\n").unwrap();
            backup(&desk, "source", &bundle, &sign).code(6).says("encrypted with a password").advises();
            let wrong = [&sign[..], &["--sign-password-file", "wrong"]].concat();
            backup(&desk, "source", &bundle, &wrong).code(6).says("password of locked.key is wrong").advises();
            backup(&desk, "source", &bundle, &[&sign[..], &["--sign-password-file", "right"]].concat()).code(0);
        } else {
            backup(&desk, "source", &bundle, &sign).code(0);
        }
        assert_eq!(stock_check(&desk, &bundle, &public), Some(true));
        assert_eq!(stock_check(&desk, &bundle, "sign.pub"), Some(false));
        desk.run(["verify", &bundle, "--trusted-key", &public]).code(0);
    }
    // The other way round: what minisign signs, pacharc takes.
    let mut outer = Outer::read(&std::fs::read(desk.path("ours.pacharc")).unwrap());
    std::fs::write(desk.path("BLAKE3SUMS"), outer.entry("BLAKE3SUMS").clone()).unwrap();
    assert_eq!(minisign(&desk, &["-Sm", "BLAKE3SUMS", "-s", "plain.key"], ""), Some(true));
    outer.sign(Some(std::fs::read(desk.path("BLAKE3SUMS.minisig")).unwrap()));
    std::fs::write(desk.path("theirs.pacharc"), outer.write()).unwrap();
    desk.run(["verify", "theirs.pacharc", "--trusted-key", "plain.pub"]).code(0);
    desk.run(["verify", "theirs.pacharc", "--trusted-key", "sign.pub"]).code(6);
}
