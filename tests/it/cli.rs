//! The command line from outside: help, wrong usage, layers of settings, keys, and documents that tell the truth.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// The program, in a folder of its own and without settings from outside.
fn pacharc(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("pacharc").unwrap();
    command.current_dir(folder).env("COLUMNS", "100");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PACHARC_") {
            command.env_remove(name);
        }
    }
    command
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn docs(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)
}

/// A valid recipient whose key nobody has kept.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[test]
fn help_is_what_it_was() {
    let folder = folder();
    for args in ["--help", "help backup", "help verify", "help restore", "help plan", "keygen --help"] {
        let args: Vec<&str> = args.split(' ').collect();
        let output = pacharc(folder.path()).args(&args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        insta::assert_snapshot!(args.join("_").replace("--", ""), stdout(&output));
    }
}

#[test]
fn wrong_usage_is_exit_2_and_says_what_is_wrong() {
    let backup = ["backup", "--bucket=file:///b", "-o=x", "--recipient", RECIPIENT];
    let with = |more: &[&'static str]| [&backup[..], more].concat();
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "Usage: pacharc <COMMAND>"),
        (vec!["bakup"], "unrecognized subcommand 'bakup'"),
        (vec!["backup", "--bucket", "b"], "--output is not given"),
        (vec!["backup", "-o", "x"], "with --namespace NAME; or a server with --postgres URL"),
        (vec!["backup", "-o", "x", "--bucket", "b"], "no recipient"),
        (vec!["backup", "-o", "x", "--bucket", "b", "--recipient", "bob"], "`bob` is not a recipient"),
        (with(&["--passphrase-file", "/dev/null"]), "with a passphrase or to recipients, not both"),
        (with(&["--quiet", "-v"]), "--quiet and --verbose exclude each other"),
        (with(&["--database", "d"]), "--database needs --postgres"),
        (with(&["--live-only"]), "--live-only needs --postgres and --bucket"),
        (with(&["--quiesce", "hard"]), "invalid value 'hard'"),
        (with(&["--max-memory", "1M"]), "at least 64MiB"),
        (with(&["--jobs", "none"]), "a number from 1 to 256"),
        (with(&["--temp-dir", "/nowhere"]), "there is no such folder"),
        (with(&["--compression-level", "20"]), "20 is not in 1..=19"),
        (with(&["--json-file", "/nowhere/x"]), "cannot write /nowhere/x"),
        (with(&["--config", "absent.toml"]), "cannot read the configuration file absent.toml"),
        (with(&["--context", "c"]), "--context needs --namespace"),
        (with(&["--guardian-annotation", "a=b"]), "--guardian-annotation needs --guardian-image"),
        (with(&["--sign-password-file", "p"]), "--sign-password-file needs --sign-key"),
        (with(&["--quiesce", "suspend"]), "--quiesce suspend or hold needs --namespace"),
        (
            with(&["--namespace", "n", "--in-cluster", "--image", "i", "--sign-key", "k"]),
            "--sign-key and --in-cluster exclude each other",
        ),
        (with(&["--namespace", ""]), "a name is not empty"),
        (vec!["discover"], "--namespace is not given"),
        (vec!["backup", "-o", "{when}"], "unknown field {when}"),
        (vec!["backup", "-o", "{namespace}", "--bucket", "b"], "{namespace} needs --namespace"),
        (vec!["verify"], "<BUNDLE>"),
        (vec!["verify", "x", "--level", "deep"], "invalid value 'deep'"),
        (vec!["verify", "x", "--expect-id", "12"], "an id has 64 hex digits"),
        (vec!["verify", "x", "--not-older-than", "long"], "write an age such as 7d"),
        (vec!["verify", "x", "--kubeconfig", "k"], "--kubeconfig needs --namespace"),
        (vec!["verify", "x", "--database", "d"], "--database needs --against"),
        (vec!["verify", "x", "--continue", "f"], "--continue needs --against"),
        (vec!["verify", "x", "--against", "source", "--seed", "1"], "--seed needs --sample"),
        (vec!["restore", "x", "--bucket", "b", "--apply-secrets"], "--apply-secrets needs --namespace"),
        (vec!["restore", "x", "--bucket", "b", "--drill"], "--drill needs --write-to"),
        (vec!["restore", "x"], "a target is not given"),
        (vec!["restore", "x", "--bucket", "b", "--owner", "o"], "--owner needs --postgres"),
        (vec!["restore", "x", "--postgres", "p", "--database", "a=x", "--database", "b=x"], "a target is named twice"),
        (vec!["extract", "x"], "<PATH>"),
        (vec!["keygen", "-y", "a", "-o", "b"], "--recipient-of and --output exclude each other"),
        (vec!["completions", "tcsh"], "invalid value 'tcsh'"),
    ];
    let folder = folder();
    for (args, message) in cases {
        let output = pacharc(folder.path()).args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "wrong usage leaves nothing behind");
}

#[test]
fn the_layers_win_in_their_order() {
    let folder = folder();
    std::fs::write(folder.path().join("c.toml"), "temp-dir = '/from-file'\n[verify]\njobs = 2\n").unwrap();
    // A folder that does not exist is named in the error: so the layer that won shows.
    let told = |typed: &[&str], environment: &[(&str, &str)]| {
        let mut command = pacharc(folder.path());
        command.args(["verify", "x"]).args(typed);
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let environment = [("PACHARC_TEMP_DIR", "/from-environment")];
    assert!(told(&["--temp-dir=/typed", "--config=c.toml"], &environment).contains("--temp-dir /typed:"));
    assert!(told(&["--config=c.toml"], &environment).contains("--temp-dir /from-environment:"));
    assert!(told(&["--config=c.toml"], &[("PACHARC_TEMP_DIR", "")]).contains("--temp-dir /from-file:"));
    assert!(told(&[], &[("PACHARC_CONFIG", "c.toml")]).contains("--temp-dir /from-file:"));
    assert!(told(&[], &[("PACHARC_JOBS", "none")]).contains("a number from 1 to 256"));
    assert!(told(&["-v"], &[("PACHARC_QUIET", "yes")]).contains("--quiet and --verbose exclude each other"));
}

#[test]
fn what_a_flag_needs_may_come_from_any_layer() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("x", "no bundle");
    write("cluster.toml", "namespace = 'n'\n[restore]\nwrite-to = 'release'\n");
    write("apply.toml", "[restore]\napply-secrets = true\n");
    std::fs::create_dir(folder.path().join("b")).unwrap();
    let bucket = format!("--bucket=file://{}", folder.path().join("b").display());
    let run = |args: &[&str], environment: &[(&str, &str)], code: i32, message: &str| {
        let mut command = pacharc(folder.path());
        let output = command.args(args).envs(environment.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
    };
    assert!(pacharc(folder.path()).args(["keygen", "-o", "key"]).output().unwrap().status.success());
    // There is no such kubeconfig: so far it comes.
    let (context, kubeconfig) = (("PACHARC_CONTEXT", "prod"), ("PACHARC_KUBECONFIG", "absent"));
    let status = ["status", "--config=cluster.toml", "--kubeconfig=absent"];
    run(&status, &[context], 7, "no Kubernetes cluster");
    run(&[&status[..], &["--context=prod"]].concat(), &[], 7, "no Kubernetes cluster");
    let wanted = ["--apply-secrets", "--drill", "--secret-values", "--host=h", "--pachyderm-version=3"];
    let restore = ["restore", "x", &bucket, "--identity=key", "--config=cluster.toml"];
    run(&[&restore[..], &wanted].concat(), &[kubeconfig], 7, "no Kubernetes cluster");

    // What the environment says is for other commands.
    let database = ("PACHARC_DATABASE", "pachyderm");
    let compared = [database, ("PACHARC_SAMPLE", "5%"), ("PACHARC_SEED", "1"), ("PACHARC_CONTINUE", "f")];
    for one in [context, kubeconfig].into_iter().chain(compared) {
        run(&["verify", "x"], &[one], 3, "bundle");
    }

    // What is wanted and cannot be done is told, wherever it comes from.
    let restore = ["restore", "x", &bucket, "--config=apply.toml"];
    run(&restore, &[], 2, "--apply-secrets needs --namespace");
    run(&[&restore[..], &["--write-to=release"]].concat(), &[], 2, "--apply-secrets needs --namespace");
    run(&["restore", "x", &bucket], &[("PACHARC_HOST", "h")], 2, "--host needs --write-to");
    let suspend = ["suspend", "-n=n", "--for=1h"];
    let annotation = ("PACHARC_GUARDIAN_ANNOTATION", "a=b");
    run(&suspend, &[annotation], 2, "--guardian-annotation needs --guardian-image");
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let folder = folder();
    std::fs::write(folder.path().join("c.toml"), "max_memory = '1GiB'\n").unwrap();
    let output = pacharc(folder.path()).args(["verify", "x", "--config", "c.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = "pacharc: error: unknown key `max_memory` in c.toml\nhint: Is `max-memory` meant?\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn errors_are_events_too() {
    let folder = folder();
    let error = |args: &[&str]| {
        let output = pacharc(folder.path()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        output
    };
    let event = |text: &str| serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap();

    // To standard output, and people's text to standard error.
    let output = error(&["backup", "--json", "-o=x", "--bucket=b"]);
    let said = event(&stdout(&output));
    assert_eq!((&said["event"], &said["exit_code"], &said["class"]), (&"error".into(), &2.into(), &"usage".into()));
    assert!(said["message"].as_str().unwrap().contains("no recipient"));
    assert!(said["advice"].as_str().unwrap().contains("keygen"));
    assert!(stderr(&output).starts_with("pacharc: error: no recipient"));

    // The bundle would go to standard output: events alone on standard error.
    let output = error(&["backup", "--json", "-o=-", "--bucket=b"]);
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).lines().all(|line| line.starts_with('{')), "{}", stderr(&output));
    assert_eq!(event(&stderr(&output))["event"], "error");

    // Before the arguments are understood.
    assert_eq!(event(&stdout(&error(&["verify", "--json", "x", "--level=none"])))["class"], "usage");
    assert_eq!(event(&stdout(&error(&["verify", "--json", "x", "--config=absent"])))["class"], "usage");

    // Into a file.
    error(&["backup", "--json-file=events", "-o=x", "--bucket=b"]);
    assert_eq!(event(&std::fs::read_to_string(folder.path().join("events")).unwrap())["event"], "error");
}

#[test]
fn keygen_makes_a_key_that_is_kept() {
    let folder = folder();
    let made = pacharc(folder.path()).args(["keygen", "-o", "key.txt"]).output().unwrap();
    assert!(made.status.success() && made.stdout.is_empty());
    let told = stderr(&made);
    let recipient = told.strip_prefix("Public key: ").unwrap().trim();
    let path = folder.path().join("key.txt");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("# created: 20") && lines[0].ends_with('Z'), "{}", lines[0]);
    assert_eq!(lines[1], format!("# public key: {recipient}"));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);

    let again = pacharc(folder.path()).args(["keygen", "-o", "key.txt"]).output().unwrap();
    assert_eq!(again.status.code(), Some(5));
    assert!(stderr(&again).contains("key.txt exists") && stderr(&again).contains("hint: "));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    let public = pacharc(folder.path()).args(["keygen", "-y", "key.txt"]).output().unwrap();
    assert_eq!(stdout(&public).trim(), recipient);

    let shown = pacharc(folder.path()).arg("keygen").output().unwrap();
    assert!(stdout(&shown).contains("\nAGE-SECRET-KEY-1") && stderr(&shown).starts_with("Public key: age1"));

    let nowhere = pacharc(folder.path()).args(["keygen", "-o", "no/key.txt"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    let absent = pacharc(folder.path()).args(["keygen", "-y", "absent"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(6));
}

#[test]
fn ages_own_tools_read_the_key() {
    let folder = folder();
    let key = folder.path().join("key.txt");
    assert!(pacharc(folder.path()).args(["keygen", "-o", "key.txt"]).output().unwrap().status.success());
    let Ok(public) = std::process::Command::new("age-keygen").arg("-y").arg(&key).output() else {
        println!("skipped: age-keygen is not installed");
        return;
    };
    let ours = pacharc(folder.path()).args(["keygen", "-y", "key.txt"]).output().unwrap();
    assert_eq!(stdout(&public), stdout(&ours));
}

#[test]
fn a_secret_key_on_the_command_line_is_not_repeated() {
    let folder = folder();
    let key = stdout(&pacharc(folder.path()).arg("keygen").output().unwrap());
    let secret = key.lines().last().unwrap();
    let args = ["backup", "--json", "-o=x", "--bucket=b", "--recipient", secret];
    let output = pacharc(folder.path()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!stdout(&output).contains(secret) && !stderr(&output).contains(secret));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    std::fs::write(folder.path().join("bucket/a"), "text").unwrap();
    std::fs::write(folder.path().join("phrase"), "correct horse\n").unwrap();
    let bucket = format!("--bucket=file://{}", folder.path().join("bucket").display());
    let made = pacharc(folder.path()).args(["backup", &bucket, "--passphrase-file=phrase", "-o=b"]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let list = ["list", "b", "--passphrase-file=phrase", "--quiet"];
    for args in [&["flags"][..], &list, &["inspect", "b", "--quiet"]] {
        let output = pacharc(folder.path()).args(args).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", stderr(&output));
        // The same again, with the reading end closed before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pacharc"));
        let output =
            command.args(args).current_dir(folder.path()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}

/// Starts the program with pipes that nobody serves.
fn start(folder: &Path, args: &[&str]) -> Child {
    std::process::Command::new(assert_cmd::cargo::cargo_bin!("pacharc"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads standard error up to a line with `text`.
fn wait_for(child: &mut Child, text: &str) {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(text)), "it never said {text}");
}

fn send(child: &Child, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The exit code, which must come soon.
fn ends(mut child: Child) -> Option<i32> {
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("it still runs a minute after the signal");
}

#[test]
fn a_signal_ends_a_run_that_waits_for_its_input() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = folder();
        let mut child = start(folder.path(), &["verify", "-", "-v"]);
        wait_for(&mut child, "checking sums");
        send(&child, signal);
        assert_eq!(ends(child), Some(code));
    }
}

#[test]
fn a_signal_ends_a_run_whose_output_nobody_reads() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    // More than a pipe holds, and of no pattern that zstd would find.
    let mut noise = vec![0; 4 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    std::fs::write(folder.path().join("bucket/noise"), noise).unwrap();
    let bucket = format!("--bucket=file://{}", folder.path().join("bucket").display());
    let mut child = start(folder.path(), &["backup", &bucket, "-o=-", "--recipient", RECIPIENT, "-v"]);
    wait_for(&mut child, "copying objects");
    send(&child, "-INT");
    assert_eq!(ends(child), Some(130));
}

/// A pipe that is full, and whose reader reads nothing.
fn stuck() -> (std::io::PipeReader, std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while std::io::Write::write(&mut writer, &[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Starts a backup that tells everything to such a pipe: events, people's text, or both. The rest goes nowhere.
fn start_stuck(folder: &Path, output: &str, events: bool, text: bool) -> (Child, std::io::PipeReader) {
    std::fs::create_dir_all(folder.join("bucket")).unwrap();
    std::fs::write(folder.join("bucket/a"), "text").unwrap();
    let bucket = format!("--bucket=file://{}", folder.join("bucket").display());
    let (reader, writer) = stuck();
    let end = |is_stuck: bool| if is_stuck { Stdio::from(writer.try_clone().unwrap()) } else { Stdio::null() };
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pacharc"))
        .args(["backup", &bucket, "--recipient", RECIPIENT, "-vvv", "--json", "-o", output])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(end(events))
        .stderr(end(text))
        .spawn()
        .unwrap();
    (child, reader)
}

#[test]
fn a_reader_that_hangs_holds_nothing_up() {
    let folder = folder();
    let runs = [("a", true, false), ("b", false, true), ("c", true, true)];
    let runs = runs.map(|(output, events, text)| (output, start_stuck(folder.path(), output, events, text)));
    for (output, (child, _reader)) in runs {
        assert_eq!(ends(child), Some(0), "{output}");
        assert!(folder.path().join(output).exists(), "{output}");
    }
}

#[test]
fn a_reader_that_comes_late_gets_everything() {
    let folder = folder();
    let (child, reader) = start_stuck(folder.path(), "b", true, false);
    // The run is over, and waits.
    std::thread::sleep(Duration::from_secs(3));
    let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).filter(|line| !line.is_empty()).collect();
    assert!(lines.first().is_some_and(|line| line.contains("\"event\":\"started\"")), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.contains("\"event\":\"finished\"")), "{lines:?}");
    assert_eq!(ends(child), Some(0));
}

#[test]
fn a_bundle_whose_reader_goes_away_is_a_failure() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let bucket = format!("--bucket=file://{}", folder.path().join("bucket").display());
    let mut child = start(folder.path(), &["backup", &bucket, "-o=-", "--recipient", RECIPIENT]);
    drop(child.stdout.take());
    assert_eq!(ends(child), Some(1));
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let folder = folder();
    let args = ["backup", "--postgres", "postgres://u:hunter2@127.0.0.1:1/x", "-o=x", "--recipient", RECIPIENT, "-vvv"];
    let output = pacharc(folder.path()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("PACHARC_POSTGRES") && !stderr(&output).contains("hunter2"));

    // From the environment it is taken: nobody listens there.
    let mut command = pacharc(folder.path());
    command.env("PACHARC_POSTGRES", "postgres://u:hunter2@127.0.0.1:1/x");
    let output = command.args(["backup", "-o=x", "--recipient", RECIPIENT, "-vvv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn completions_and_man_pages_are_generated() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let output = pacharc(folder.path()).args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains("recipients-file"), "{shell}");
    }
    assert!(pacharc(folder.path()).args(["man", "."]).output().unwrap().status.success());
    let page = std::fs::read_to_string(folder.path().join("pacharc-backup.1")).unwrap();
    assert!(page.contains("recipients\\-file") && page.contains("EXIT CODES"));
    let nowhere = pacharc(folder.path()).args(["man", "nowhere"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn outcomes_are_documented() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("source")).unwrap();
    std::fs::create_dir(folder.path().join("target")).unwrap();
    std::fs::write(folder.path().join("source/a"), "text").unwrap();
    let bucket = |name| format!("--bucket=file://{}", folder.path().join(name).display());
    let (source, target) = (bucket("source"), bucket("target"));
    let told = stderr(&pacharc(folder.path()).args(["keygen", "-o", "key"]).output().unwrap());
    let recipient = format!("--recipient={}", told.strip_prefix("Public key: ").unwrap().trim());

    let page = std::fs::read_to_string(docs("json.md")).unwrap();
    let runs: [&[&str]; 10] = [
        &["plan", &source],
        &["plan", "backup", &source],
        &["backup", &source, &recipient, "-o=b.pacharc"],
        &["verify", "b.pacharc"],
        &["verify", "b.pacharc", "-i=key"],
        &["list", "b.pacharc", "-i=key"],
        &["inspect", "b.pacharc", "-i=key"],
        &["extract", "b.pacharc", "objects", "-i=key", "-o=out"],
        &["plan", "restore", "b.pacharc", "-i=key", &target],
        &["restore", "b.pacharc", "-i=key", &target],
    ];
    for args in runs {
        let output = pacharc(folder.path()).args(args).arg("--json").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        let text = stdout(&output);
        let finished: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(finished["event"], "finished", "{args:?}");
        let command = match args[..2] {
            ["plan", "restore"] => "plan restore",
            ["plan", _] => "plan backup",
            [command, ..] => command,
            [] => unreachable!(),
        };
        let section = page.split(&format!("\n### {command}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        let section = section.split("\n### ").next().unwrap();
        let fields = finished["outcome"].as_object().unwrap();
        assert!(!fields.is_empty());
        for field in fields.keys() {
            assert!(section.contains(&format!("`{field}`")), "docs/json.md: {command} lacks {field}");
        }
    }
    assert_eq!(std::fs::read(folder.path().join("target/a")).unwrap(), b"text");
}

#[test]
fn the_table_of_flags_is_up_to_date() {
    let table = stdout(&pacharc(folder().path()).arg("flags").output().unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(docs("flags.md"), &table).unwrap();
    }
    let kept = std::fs::read_to_string(docs("flags.md")).unwrap();
    assert!(kept == table, "docs/flags.md is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn the_exit_codes_are_documented() {
    let page = std::fs::read_to_string(docs("exit-codes.md")).unwrap();
    for (class, meaning) in pacharc::cli::CODES {
        let row = format!("| {} | {} | {meaning} |", class.exit_code(), class.name());
        assert!(page.lines().any(|line| line == row), "docs/exit-codes.md lacks {row}");
    }
}
