//! Level *restore*: the dump is loaded into a PostgreSQL that nobody else uses, and read out again.
//!
//! It is loaded by the code of a restore, under temporary names, and in the same pass that checks the bundle; of one that must be a
//! certain one, behind that pass. What the server refuses for what the rows hold was wrong at the source; what it lacks says
//! nothing of the bundle.

use std::path::PathBuf;

use pacharc_format::manifest::Manifest;
use pacharc_format::{Entry, Head};
use serde::Serialize;

use super::{Error, SourceDamage};
use crate::database::throwaway::Throwaway;
use crate::database::{self, Environment, Server, Tool, Tools};
use crate::failure::{self, Class, Explain as _};
use crate::monitor::{Monitor, Phase};
use crate::options::{Limits, Postgres};
use crate::restore::{self, DatabaseWriter, Rename};

/// Which server a trial restores into.
#[derive(Clone, Debug)]
pub enum Scratch {
    /// One that is made for it from the installed programs, which lie in this folder where one is named.
    Throwaway(Option<PathBuf>),
    /// One that is there; what is made on it is dropped at the end.
    Server(Postgres),
}

/// What a trial restore has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The version of the server that it was restored into.
    pub server: String,
    /// Whether that was made for it.
    pub throwaway: bool,
    /// The databases.
    pub databases: Vec<TriedDatabase>,
}

/// One database of a trial restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedDatabase {
    /// Its name in the bundle.
    pub name: String,
    /// Tables whose rows were read out again, and compared.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Foreign keys that the server has checked.
    pub foreign_keys: u64,
    /// Indexes whose order was checked (amcheck); absent where the server cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexes: Option<u64>,
}

/// Why a trial goes no further.
pub(super) enum Stop {
    /// The bundle is wrong, as `path` and problem say.
    Damage(String, String),
    /// The rows are not what a server takes.
    Source(SourceDamage),
    /// It cannot be tried here.
    Failed(Error),
}

/// A trial under way.
pub(super) struct TrialRun<'m> {
    writer: DatabaseWriter<'m>,
    server: Server,
    version: String,
    throwaway: Option<Throwaway>,
    monitor: &'m dyn Monitor,
}

impl<'m> TrialRun<'m> {
    /// Has the server, and an empty database for each of the bundle's; `None` where it has none.
    pub(super) async fn begin(
        scratch: &Scratch,
        head: &Head,
        limits: &Limits,
        monitor: &'m dyn Monitor,
    ) -> Result<Option<Self>, Stop> {
        let Some(source) = head.postgres.as_ref().filter(|_| !head.databases.is_empty()) else { return Ok(None) };
        let (server, throwaway, pg_bin) = match scratch {
            Scratch::Throwaway(pg_bin) => {
                let throwaway = Throwaway::start(source.version_num, pg_bin.as_deref(), &limits.temp_dir).await;
                let throwaway = throwaway.map_err(failed)?;
                make_roles(&throwaway, head).await.map_err(failed)?;
                (throwaway.loader().map_err(failed)?, Some(throwaway), pg_bin)
            }
            Scratch::Server(postgres) => {
                let url = Some(postgres.url.expose()).filter(|url| !url.is_empty());
                let server = Server::new(url, postgres.from_command_line, &Environment::of_process(), None);
                (server.map_err(failed)?, None, &postgres.pg_bin)
            }
        };
        // Other names than those of a restore from a pipe, which may be under way on the same server.
        let names = head.databases.iter().map(|database| &database.name);
        let selection: Vec<Rename> =
            names.map(|name| Rename { bundled: name.clone(), target: format!("trial of {name}") }).collect();
        let version = version(&server).await.map_err(failed)?;
        let psql: Tool = Tools::find_psql(source.version_num, pg_bin.as_deref()).await.map_err(failed)?;
        let loading = (server.clone(), psql);
        let mut writer = DatabaseWriter::new(&loading, (None, limits.jobs), head, &selection, None, monitor);
        if throwaway.is_some() {
            writer.leave_to_server();
        }
        // From here on, whatever is made goes with it, also when a signal comes: databases, or the server that has them.
        let mut trial = Self { writer, server, version, throwaway, monitor };
        trial.writer.create(false).await.map_err(stop)?;
        Ok(Some(trial))
    }

    /// Takes an entry of the bundle; those that are no part of a dump are passed over.
    pub(super) async fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        if !entry.path.starts_with("database/") {
            return Ok(());
        }
        self.writer.entry(entry.clone()).await.map_err(stop)
    }

    /// Builds what is left, reads everything out again, and takes everything away. Beside the outcome come differences, in
    /// words.
    pub(super) async fn finish(mut self, manifest: &Manifest) -> Result<(Trial, Vec<String>), Stop> {
        let proofs = self.writer.finish(manifest).await.map_err(stop)?;
        self.monitor.phase(Phase::Prove);
        let (mut databases, mut differences) = (Vec::new(), Vec::new());
        for (name, proof) in proofs {
            let name = name.strip_prefix("trial of ").unwrap_or(&name).to_owned();
            differences.extend(proof.differences.iter().map(|difference| format!("database {name}: {difference}")));
            let (foreign_keys, indexes) = self.check(&name, &mut differences).await.map_err(failed)?;
            databases.push(TriedDatabase { name, tables: proof.tables, rows: proof.rows, foreign_keys, indexes });
        }
        let trial = Trial { server: self.version.clone(), throwaway: self.throwaway.is_some(), databases };
        self.end().await?;
        Ok((trial, differences))
    }

    /// Counts the foreign keys, and checks the order of every index where the server can.
    async fn check(&self, name: &str, problems: &mut Vec<String>) -> Result<(u64, Option<u64>), database::Error> {
        let Some(now) = self.writer.name_now(name) else { return Ok((0, None)) };
        let superuser = self.throwaway.as_ref().map(Throwaway::superuser).transpose()?;
        let session = superuser.as_ref().unwrap_or(&self.server).connect(&now).await?;
        let failed = || database::Error::query("cannot read the constraints of the trial restore");
        let sql = "SELECT count(*) FROM pg_catalog.pg_constraint WHERE contype = 'f' AND convalidated";
        let row = session.query_one(sql, &[]).await.map_err(failed())?;
        let foreign_keys = row.try_get::<_, i64>(0).map_err(failed())?.unsigned_abs();
        // In a schema where nothing of a bundle's can stand in its place.
        let amcheck = session.batch_execute("CREATE EXTENSION amcheck WITH SCHEMA pg_catalog").await;
        if amcheck.is_err() {
            self.monitor.warn(format!("the indexes of database {name} are not checked: amcheck is not to be had"));
            return Ok((foreign_keys, None));
        }
        let sql = "SELECT i.indexrelid, i.indexrelid::pg_catalog.regclass::text
            FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
            JOIN pg_catalog.pg_am a ON a.oid = c.relam
            WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid";
        let failed = || database::Error::query("cannot check the indexes of the trial restore");
        let mut checked = 0;
        for row in session.query(sql, &[]).await.map_err(failed())? {
            let (index, index_name): (u32, String) =
                (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
            match session.execute("SELECT pg_catalog.bt_index_check($1::oid::regclass)", &[&index]).await {
                Ok(_) => checked += 1,
                Err(error) if error.code().is_some_and(|code| code.code().starts_with("XX")) => {
                    problems.push(format!("database {name}, index {index_name}: {}", failure::chain(&error)));
                }
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok((foreign_keys, Some(checked)))
    }

    /// Takes everything away.
    pub(super) async fn end(mut self) -> Result<(), Stop> {
        match self.throwaway.take() {
            Some(throwaway) => throwaway.stop().await.map_err(failed)?,
            None => self.writer.drop_temporary().await,
        }
        Ok(())
    }
}

fn failed(error: database::Error) -> Stop {
    Stop::Failed(Error::NotTried(Box::new(error.into())))
}

/// Whether the server refuses what the rows hold: bytes that are no text (22021) or no such value, keys that contradict each
/// other. 22023 is of a setting or an option that it does not know, and 22P04 of a COPY that is none.
fn is_of_rows(sqlstate: &str) -> bool {
    match sqlstate {
        "22023" | "22P04" => false,
        _ => ["22", "23"].iter().any(|class| sqlstate.starts_with(class)),
    }
}

/// What an error of loading means.
fn stop(error: restore::Error) -> Stop {
    match &error {
        restore::Error::Database(database::Error::Query { source, .. })
            if source.code().is_some_and(|code| is_of_rows(code.code())) =>
        {
            Stop::Source(SourceDamage {
                subject: "the dump".to_owned(),
                problem: format!("it does not restore: {}", failure::chain(&error)),
                ..SourceDamage::default()
            })
        }
        error if error.class() == Class::Damaged => Stop::Damage("database".to_owned(), failure::chain(error)),
        _ => Stop::Failed(Error::NotTried(Box::new(error))),
    }
}

/// Roles that policies name are made, without any right: the dump cannot be loaded without them.
async fn make_roles(throwaway: &Throwaway, head: &Head) -> Result<(), database::Error> {
    let session = throwaway.superuser()?.connect("postgres").await?;
    let roles: std::collections::BTreeSet<&str> = head
        .databases
        .iter()
        .flat_map(|database| &database.properties.policy_roles)
        .map(String::as_str)
        .filter(|role| *role != "public")
        .collect();
    for role in roles {
        let exists = session.query_opt("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role]).await;
        let failed = || database::Error::query(format!("cannot make role \"{role}\""));
        if exists.map_err(failed())?.is_none() {
            let sql = format!("CREATE ROLE {}", database::catalog::quote_identifier(role));
            session.batch_execute(&sql).await.map_err(failed())?;
        }
    }
    Ok(())
}

async fn version(server: &Server) -> Result<String, database::Error> {
    let session = match server.connect("postgres").await {
        Ok(session) => session,
        Err(error) => match server.default_database() {
            Some(name) => server.connect(name).await?,
            None => return Err(error),
        },
    };
    Ok(session.version().to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_of_rows;

    #[test]
    fn rows_are_told_from_what_a_server_lacks() {
        assert!(["22021", "22P02", "22003", "23505"].into_iter().all(is_of_rows));
        assert!(!["22023", "22P04", "42704", "53100", "08006", "0A000"].into_iter().any(is_of_rows));
    }
}
