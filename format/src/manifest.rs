//! `manifest.json`: what the whole bundle is. Written last, small whatever the size of the data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::about::About;

/// The manifest of one bundle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `bundle.json` once more: here it is sealed, and nobody without the key can change it.
    pub about: About,
    /// When the bundle was complete (RFC 3339, UTC).
    pub finished: String,
    /// What was backed up, and how.
    pub source: Source,
    /// One for each database, in the order of their names.
    pub databases: Vec<Database>,
    /// The attempt (`database/<name>/attempt-<n>`) that counts; 0 where there are no databases.
    pub attempt: u32,
    /// What the bundle holds of the bucket; `None` where no bucket was given.
    pub objects: Option<Objects>,
    /// The sizes of everything.
    pub totals: Totals,
    /// The top of the catalog: where its directory blocks lie.
    pub catalog: Vec<CatalogBlock>,
    /// BLAKE3 of the lines of `BLAKE3SUMS` that come before this file's own, in hex.
    pub sums: String,
}

impl Manifest {
    /// Reads a manifest, and refuses numbers that cannot be added up.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let tables = manifest.databases.iter().flat_map(|database| &database.tables);
        let objects = manifest.objects.iter();
        let counts = objects.flat_map(|o| [o.live, o.orphan, o.foreign, o.rotten, o.missing]);
        let numbers = tables.flat_map(|table| [table.rows, table.bytes]);
        let mut numbers = numbers.chain(counts.flat_map(|count| [count.count, count.bytes]));
        match numbers.try_fold(0_u64, u64::checked_add) {
            Some(_) => Ok(manifest),
            None => Err("its numbers make no sense".into()),
        }
    }
}

/// Where the data came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The PostgreSQL server.
    pub postgres: Option<Postgres>,
    /// The bucket's URL, without credentials.
    pub bucket: Option<String>,
    /// `online`, `suspend` or `hold`.
    pub quiesce: String,
    /// How that went; `None` where it is `online`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// The release family of Pachyderm by the migrations table, e.g. `2.11.x`; `None` where no database is Pachyderm's.
    pub pachyderm: Option<String>,
    /// When the snapshot that counts was opened (RFC 3339, UTC).
    pub snapshot_opened: Option<String>,
    /// How many snapshots were opened until one was closed.
    pub snapshots: u32,
    /// The Kubernetes namespace, where its state is in the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
}

/// The time for which the source was suspended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// When pachd was about to be scaled to zero (RFC 3339, UTC); `None` where it never was.
    pub begun: Option<String>,
    /// How long it took from then until pachd was ready again, in seconds; `None` where that was not waited for: the pause
    /// ends after the bundle, or the source was suspended by somebody else before.
    pub seconds: Option<f64>,
    /// Who had suspended it before, and left it so: `user@host`.
    pub held_by: Option<String>,
    /// Why the snapshot cannot be called quiesced. `None`: it was opened while nothing ran that writes, and that was proved.
    pub lost: Option<LostQuiescence>,
}

/// When and why a source was no longer suspended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostQuiescence {
    /// When it was noticed (RFC 3339, UTC).
    pub at: String,
    /// What was noticed.
    pub because: String,
}

/// A namespace of a Kubernetes cluster, as it was when the backup began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// The API server's URL.
    pub server: String,
    /// The namespace.
    pub namespace: String,
    /// The image of `pachd` (or of `pach-enterprise`), where it runs there.
    pub image: Option<String>,
    /// The Helm release, where Helm has one.
    pub release: Option<Release>,
    /// How many pods each Deployment and StatefulSet was to have.
    pub replicas: BTreeMap<String, i32>,
    /// Secrets in the bundle.
    pub secrets: u64,
    /// ConfigMaps in the bundle.
    pub config_maps: u64,
    /// Whether the account could read objects by name alone, so that others may be lacking.
    pub by_name: bool,
}

/// A Helm release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// The chart's name.
    pub chart: String,
    /// The chart's version.
    pub chart_version: String,
    /// The version of what the chart installs.
    pub app_version: Option<String>,
}

/// A PostgreSQL server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postgres {
    /// `server_version`, e.g. `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// `server_version_num`, e.g. 150018.
    pub version_num: u32,
    /// `system_identifier` of the control data, which tells one cluster from another.
    pub system_identifier: Option<String>,
    /// `host:port`, as connected.
    pub host: String,
    /// Whether the server was in recovery (a standby).
    pub standby: bool,
    /// The replay lag of a standby in bytes, where known.
    pub replay_lag: Option<u64>,
}

/// One database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Its name at the source.
    pub name: String,
    /// The folder of this database inside the tree: `database/<folder>`.
    pub folder: String,
    /// What kind it is.
    pub kind: DatabaseKind,
    /// `max(id)` of Pachyderm's `public.migrations`, or `max(num)` of Dex's.
    pub schema_version: Option<i64>,
    /// Encoding, locale, settings: what `CREATE DATABASE` and `ALTER DATABASE` must say.
    pub properties: DatabaseProperties,
    /// `SET` statements' values under which data was dumped and fingerprints were taken: name and value.
    pub session: Vec<(String, String)>,
    /// Version of the pg_dump that wrote it.
    pub pg_dump: String,
    /// Every table with data, in the order of `number`.
    pub tables: Vec<Table>,
    /// Every sequence.
    pub sequences: Vec<Sequence>,
    /// Large objects.
    pub large_objects: LargeObjects,
    /// What a dump leaves out, in words: publications, subscriptions, tablespaces, foreign tables' rows.
    pub left_out: Vec<String>,
}

/// What a database is to Pachyderm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseKind {
    /// The main database: it has `storage.chunk_objects`.
    Pachyderm,
    /// Dex's.
    Dex,
    /// Neither: there is no live set to close.
    #[default]
    Other,
}

/// What `pg_database`, `pg_db_role_setting` and `pg_extension` say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseProperties {
    /// Server encoding, e.g. `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin` (servers from 15 on; `libc` before).
    pub locale_provider: String,
    /// The ICU or builtin locale, where the provider has one.
    pub locale: Option<String>,
    /// ICU rules (servers from 16 on).
    pub icu_rules: Option<String>,
    /// The owner's name.
    pub owner: String,
    /// The comment on the database.
    pub comment: Option<String>,
    /// The effective `TimeZone` of a new session in this database.
    pub timezone: String,
    /// `ALTER DATABASE … SET name = value` (role `None`), and `ALTER ROLE … IN DATABASE …`.
    pub settings: Vec<DatabaseSetting>,
    /// Extensions but `plpgsql`.
    pub extensions: Vec<Extension>,
    /// Roles that policies name: they must exist before a restore.
    pub policy_roles: Vec<String>,
}

/// One row's setting of `pg_db_role_setting`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// The role it holds for; all where `None`.
    pub role: Option<String>,
    /// The parameter.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An extension that the database uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The schema it lives in.
    pub schema: String,
}

/// One table's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The folder `data/<number>`, five digits or more; numbers begin at 1.
    pub number: u32,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// The columns, as dumped (generated columns are not).
    pub columns: Vec<String>,
    /// The partitioned table through which the rows are compared (and loaded, where `via_root`), where rows may land
    /// in another partition of it: schema and name.
    pub root: Option<(String, String)>,
    /// Whether the rows are loaded through `root`.
    pub via_root: bool,
    /// An extension's configuration table, dumped in part: the `WHERE` clause, empty for all rows.
    pub extension_filter: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text, line ends included.
    pub bytes: u64,
    /// Pieces in the folder.
    pub pieces: u32,
    /// Sum modulo 2^256 of the BLAKE3 of each COPY text line without its line end; hex, most significant digit first.
    pub fingerprint: String,
    /// The first row, from 1, that is not text in the dump's encoding, so that no server takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_row: Option<u64>,
}

/// One sequence, as dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The schema's name.
    pub schema: String,
    /// The sequence's name.
    pub name: String,
    /// `last_value`.
    pub last_value: i64,
    /// `is_called`.
    pub is_called: bool,
}

/// The large objects of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// Sum modulo 2^256 of the BLAKE3 of (oid as 4 bytes big-endian, then content) of each; hex.
    pub fingerprint: String,
}

/// What the bundle holds of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// Whether every live object of the dumped snapshot is in the bundle, with the bytes that its key promises.
    /// `None` where no database is Pachyderm's: there is no live set.
    pub closed: Option<bool>,
    /// Live objects; where there is no live set, all objects.
    pub live: Count,
    /// Chunk keys without a live row.
    pub orphan: Count,
    /// Keys that are not of Pachyderm's form.
    pub foreign: Count,
    /// Live rows whose bytes are not what the key promises (in the bundle, marked).
    pub rotten: Count,
    /// Live rows without an object. Bytes: as the rows say.
    pub missing: Count,
    /// Whether orphans were left out (`--live-only`).
    pub live_only: bool,
    /// Prefixes that were left out (`--exclude`), percent-encoded.
    pub excluded: Vec<String>,
}

/// How many, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Count {
    /// Counts one more.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        // A bundle may tell sizes that no source ever had.
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The sizes of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Segments.
    pub segments: u64,
    /// Entries in all segments, pieces counted one by one.
    pub entries: u64,
    /// Bytes of all entries.
    pub bytes: u64,
    /// Index shards.
    pub index_shards: u64,
    /// Lines of the catalog.
    pub catalog_lines: u64,
    /// Sum modulo 2^256 of the BLAKE3 of each index line that is in the catalog, hex: what makes both agree.
    pub index_fingerprint: String,
}

/// Where a block of the catalog lies, and with which path it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogBlock {
    /// The first path in it.
    pub first: String,
    /// Its number: the file `catalog/<number>.jsonl.zst.age`.
    pub number: u64,
    /// Where its bytes begin in the bundle.
    pub offset: u64,
    /// Their number.
    pub length: u64,
    /// BLAKE3 of them, hex.
    pub hash: String,
}
