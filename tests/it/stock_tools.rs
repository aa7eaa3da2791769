//! A bundle is recovered with tar, age, zstd, b3sum, psql and bash alone: the commands are those that the README inside
//! the bundle prints, taken from it by this test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::postgres::{Options, TempServer};
use pacharc_sample::{cluster, compare, skipped};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::postgres::run;

/// What the README may need; without any of these the test is skipped.
const TOOLS: [&str; 8] = ["tar", "age", "age-keygen", "zstd", "b3sum", "psql", "xargs", "script"];
/// A name that means something to bash, to libpq, to file systems and to SQL.
const ODD_DATABASE: &str = "host=nowhere a/b%41 'ü\"$(x)";
/// Keys that are not Pachyderm's and that a directory holds as they are.
const ODD_KEYS: [&str; 6] = ["odd/é 🦀", "~", "%41", "it's $HOME \\x41", "-n", "chunk/near.miss"];
/// A key, and how a directory spells it (gocloud's `fileblob`).
const ESCAPED_KEY: (&str, &str) = ("line\nend\n", "line__0xa__end__0xa__");

/// A folder with a bundle in it, and where its content is to go.
struct Recovery {
    folder: TempDir,
    /// Options of `age` that the user knows: the identity, or a passphrase.
    identity: Option<PathBuf>,
    passphrase: Option<&'static str>,
}

/// The commands of one indented block of the README.
struct Block {
    section: u32,
    commands: String,
}

impl Recovery {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), identity: None, passphrase: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the bundle with pacharc.
    fn backup(&self, arguments: &[&str]) {
        let mut backup = Command::new(env!("CARGO_BIN_EXE_pacharc"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PACHARC_") {
                backup.env_remove(name);
            }
        }
        // The least memory makes the smallest pieces.
        backup.args(["backup", "--quiet", "--max-memory=64MiB", "-o"]).arg(self.path("a b.pacharc")).args(arguments);
        run(&mut backup);
    }

    /// The blocks of commands in the bundle's README.
    fn blocks(&self) -> Vec<Block> {
        let mut tar = Command::new("tar");
        tar.arg("-xOf").arg(self.path("a b.pacharc")).args(["--wildcards", "*/README.txt"]);
        let mut blocks: Vec<Block> = Vec::new();
        let (mut section, mut inside) = (0, false);
        for line in run(&mut tar).lines() {
            let command = line.strip_prefix("    ");
            if let Some((number, _)) = line.split_once(". ")
                && let Ok(number) = number.parse()
            {
                section = number;
            }
            match (command, inside) {
                (Some(command), true) => blocks.last_mut().unwrap().commands += &format!("{command}\n"),
                (Some(command), false) => blocks.push(Block { section, commands: format!("{command}\n") }),
                (None, _) => {}
            }
            inside = command.is_some();
        }
        blocks
    }

    /// Runs the commands in one shell, and gives what each block printed.
    fn run(&self, environment: &[(&str, String)]) -> Vec<(u32, String)> {
        let blocks = self.blocks();
        let mut script = String::from("set -e\n");
        let placeholders = |commands: &str| {
            let commands = commands.replace("BUNDLE.pacharc", "'../a b.pacharc'");
            match &self.identity {
                Some(identity) => commands.replace("IDENTITY", &format!("'{}'", identity.display())),
                None => commands.replace(" -i IDENTITY", ""),
            }
        };
        for (number, block) in blocks.iter().enumerate() {
            let output = self.path(&format!("out.{number}"));
            script += &format!("{{\n{}}} > '{}'\n", placeholders(&block.commands), output.display());
        }
        let (work, file) = (self.path("work"), self.path("script"));
        fs::create_dir(&work).unwrap();
        fs::write(&file, script).unwrap();
        let mut command = match self.passphrase {
            None => Command::new("bash"),
            // age reads a passphrase from the terminal and from nowhere else.
            Some(_) => {
                let mut command = Command::new("script");
                command.args(["--quiet", "--return", "--command"]);
                command
            }
        };
        match self.passphrase {
            None => command.arg(&file),
            Some(_) => command.arg(format!("bash {}", file.display())).arg("/dev/null"),
        };
        command.current_dir(&work).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        if let Some(passphrase) = self.passphrase {
            std::io::Write::write_all(&mut input, format!("{passphrase}\n").as_bytes()).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        drop(input);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        if self.passphrase.is_none() {
            assert_eq!(said, "", "the commands warn of nothing");
        }
        let printed = |number| fs::read_to_string(self.path(&format!("out.{number}"))).unwrap();
        blocks.iter().enumerate().map(|(number, block)| (block.section, printed(number))).collect()
    }

    /// The folder that the outer tar unpacks to.
    fn unpacked(&self) -> PathBuf {
        let mut found = fs::read_dir(self.path("work")).unwrap();
        found.next().unwrap().unwrap().path()
    }
}

/// Whether the tools are there; says so where they are not.
fn tools() -> bool {
    let absent = |tool: &&&str| !Command::new("which").arg(tool).output().is_ok_and(|output| output.status.success());
    let absent: Vec<_> = TOOLS.iter().filter(absent).collect();
    if !absent.is_empty() {
        skipped(&format!("stock tools are not installed: {absent:?}"));
    }
    absent.is_empty()
}

/// Copies the objects as the README says and prints them: chunks as they are, others by `path -> key`.
fn copy_objects(unpacked: &Path, listed: &str, bucket: &Path) {
    const COPY: &str = r#"
        set -e
        mkdir -p "$1"
        cp -r tree/objects/chunk "$1/chunk"
        while IFS= read -r line; do
            eval "key=${line##* -> }"
            mkdir -p "$(dirname "$1/$key")"
            cp "${line%% -> *}" "$1/$key"
        done
    "#;
    let mut copy = Command::new("bash");
    copy.args(["-c", COPY, "copy"]).arg(bucket).current_dir(unpacked).stdin(Stdio::piped());
    let mut child = copy.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), listed.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A database in whose dump everything occurs that is loaded in a way of its own.
fn make_odd_database(server: &TempServer) {
    server.psql("postgres", &format!("CREATE DATABASE \"{}\"", ODD_DATABASE.replace('"', "\"\""))).unwrap();
    let sql = r#"
        CREATE SCHEMA "we ird";
        CREATE TABLE "we ird"."t'\" (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, text text);
        INSERT INTO "we ird"."t'\" (text) SELECT repeat(E'a\t\\.\n', 100) || n FROM generate_series(1, 20000) n;
        CREATE TABLE parts (kind text, n int) PARTITION BY HASH (kind);
        CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO parts SELECT md5(n::text), n FROM generate_series(1, 100) n;
        CREATE MATERIALIZED VIEW view AS SELECT count(*) FROM parts;
        CREATE TABLE empty ();
        SELECT lo_from_bytea(4711, decode(repeat('00ff41', 30000), 'hex'));
    "#;
    pacharc_sample::postgres::psql(
        &pacharc_sample::connection::with_database(&server.url("postgres"), ODD_DATABASE),
        sql,
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_alone_brings_a_cluster_back() {
    if !tools() {
        return;
    }
    let Some(source) = TempServer::start_or_skip(&Options::default()).unwrap() else { return };
    let target = TempServer::start(&Options::default()).unwrap();
    let mut recovery = Recovery::new();
    let directory = Directory::new(recovery.path("bucket")).with_attributes();
    let bucket: Arc<dyn Bucket> = Arc::new(directory);
    let made = cluster::make(&source.url("postgres"), Arc::clone(&bucket), &cluster::Options::default()).await.unwrap();
    for key in ODD_KEYS.into_iter().chain([ESCAPED_KEY.1]) {
        bucket.put(key, Bytes::from(key)).await.unwrap();
    }
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    bucket.put("large", large.into()).await.unwrap();
    make_odd_database(&source);

    let identity = recovery.path("it's an identity").to_string_lossy().replace('\'', "");
    run(Command::new("age-keygen").arg("-o").arg(&identity));
    let recipient = run(Command::new("age-keygen").arg("-y").arg(&identity));
    recovery.identity = Some(identity.into());
    recovery.backup(&[
        &format!("--recipient={}", recipient.trim()),
        &format!("--postgres={}", source.socket_url("postgres")),
        &format!("--bucket=file://{}", recovery.path("bucket").display()),
        "--database=pachyderm",
        "--database=dex",
        &format!("--database={ODD_DATABASE}"),
    ]);

    let path = std::env::join_paths(
        [target.bin_dir().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let printed = recovery.run(&[
        ("PATH", path.unwrap().into_string().unwrap()),
        ("PGHOST", target.socket_dir().display().to_string()),
        ("PGPORT", target.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
    ]);

    for name in ["pachyderm", "dex", ODD_DATABASE] {
        let mut found = compare::databases(&source.url("postgres"), &target.url("postgres"), name, name).unwrap();
        // What the source has by its server's configuration, create.sql pins to the database.
        found.differences.retain(|difference| difference != "setting TimeZone=UTC: absent / set");
        assert!(found.is_equal() && found.compared > 5, "{found}");
    }
    let in_section = |wanted| printed.iter().filter(move |(section, _)| *section == wanted).map(|(_, text)| text);
    let objects: Vec<&String> = in_section(4).collect();
    let [listed, catalog] = objects[..] else { panic!("section 4 lists the keys, then the catalog") };
    copy_objects(&recovery.unpacked(), listed, &recovery.path("recovered"));
    fs::rename(recovery.path("recovered").join(ESCAPED_KEY.0), recovery.path("recovered").join(ESCAPED_KEY.1)).unwrap();
    let recovered: Arc<dyn Bucket> = Arc::new(Directory::new(recovery.path("recovered")));
    let found = compare::buckets(&bucket, &recovered, None).await.unwrap();
    assert!(found.is_equal(), "{found}");
    assert_eq!(found.compared as u64, made.objects() + ODD_KEYS.len() as u64 + 2);

    let lines: Vec<Value> = catalog.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let large = lines.iter().find(|line| line["entry"]["path"] == "objects/other/large").unwrap();
    assert_eq!(large["entry"]["metadata"]["content_type"], "application/octet-stream");
    assert!(large["entry"]["pieces"]["count"].as_u64().unwrap() > 1, "{large}");
    let manifest: Value = serde_json::from_str(in_section(5).next().unwrap()).unwrap();
    assert_eq!(manifest["objects"]["closed"], true);
    assert_eq!(manifest["objects"]["live"]["count"], made.live);
}

#[test]
fn the_readme_holds_for_a_passphrase_and_for_nothing_at_all() {
    if !tools() {
        return;
    }
    let mut recovery = Recovery::new();
    recovery.passphrase = Some("correct horse");
    let file = recovery.path("passphrase");
    fs::write(&file, "correct horse\n").unwrap();
    fs::create_dir(recovery.path("bucket")).unwrap();
    recovery.backup(&[
        &format!("--passphrase-file={}", file.display()),
        &format!("--bucket=file://{}", recovery.path("bucket").display()),
    ]);
    let printed = recovery.run(&[]);
    let manifest: Value = serde_json::from_str(&printed.last().unwrap().1).unwrap();
    assert_eq!(manifest["totals"]["entries"], 0);
}

#[test]
fn minisign_checks_the_signed_vector() {
    let minisign = Command::new("minisign").arg("-v").output();
    if minisign.is_err() {
        return skipped("minisign is not installed");
    }
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("format/vectors");
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(vectors.join("signed.pacharc")).args(["--strip-components=1", "-C"]).arg(folder.path());
    run(&mut tar);
    let check = || {
        let mut check = Command::new("minisign");
        check.args(["-Vm", "BLAKE3SUMS", "-p"]).arg(vectors.join("keys/minisign.pub")).current_dir(folder.path());
        check.output().unwrap()
    };
    let output = check();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("pacharc format=1 uuid="), "{output:?}");
    let sums = folder.path().join("BLAKE3SUMS");
    fs::write(&sums, fs::read_to_string(&sums).unwrap().replacen('0', "1", 1)).unwrap();
    assert!(!check().status.success());
}

#[test]
fn the_readme_tells_a_flipped_byte() {
    if !tools() {
        return;
    }
    let recovery = Recovery::new();
    fs::create_dir(recovery.path("bucket")).unwrap();
    fs::write(recovery.path("bucket/object"), "content").unwrap();
    let recipient = "--recipient=age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    recovery.backup(&[recipient, &format!("--bucket=file://{}", recovery.path("bucket").display())]);
    let check = || {
        let commands = recovery.blocks().swap_remove(0).commands.replace("BUNDLE.pacharc", "'../a b.pacharc'");
        let work = tempfile::tempdir_in(recovery.folder.path()).unwrap();
        Command::new("bash").args(["-c", &commands]).current_dir(work.path()).output().unwrap()
    };
    assert!(check().status.success());
    let bundle = recovery.path("a b.pacharc");
    let mut bytes = fs::read(&bundle).unwrap();
    let name = b"data/00000000.tar";
    let header = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[header + 600] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let output = check();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("data/00000000.tar"), "{output:?}");
}
