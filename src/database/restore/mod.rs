//! How a database comes back: entries of a bundle in, in the bundle's order, and a database with the same content out.
//!
//! Nothing is kept but what is under way: SQL runs statement by statement as it arrives, each table's rows flow into a
//! COPY of its own, tables that mingle in the bundle are loaded at the same time. A comment on the database marks it
//! until the whole restore is done, so that an interrupted one is told from a database that somebody uses.

mod analyze;
mod claim;
mod create;
mod error;
mod load;
mod mark;
mod post_data;
mod prove;
mod sessions;
mod settings;
mod statements;
mod tables;

use bytes::Bytes;
use pacharc_format::manifest::{self, DatabaseProperties};

pub use claim::claim;
pub(crate) use create::maintenance;
pub use create::{Place, Proved, check, create_script, drop_database, release, system_identifier};
pub use error::RestoreError;
pub(crate) use mark::is_mark;
pub use mark::unload;
pub use prove::{Difference, Proof, check_owner, prove};

use super::catalog::quote_qualified;
use super::{Error, Server};
use load::Loader;
use post_data::PostData;
use sessions::Sessions;
use statements::Script;

/// Where a database is restored to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub server: Server,
    /// The database's name: the final one, or one that is kept until all is proved.
    pub database: String,
    /// Who owns what is restored; the connecting role where `None`.
    pub owner: Option<String>,
    /// How many sessions build indexes and constraints, analyze and prove, at least 1. Rows are loaded by as many as mingle in
    /// the bundle.
    pub jobs: usize,
    /// The bundle: a restore that was interrupted is begun again for the same one alone.
    pub mark: String,
}

impl Target {
    /// The owner, where it is not the connecting role itself.
    fn acting_for(&self) -> Option<&str> {
        self.owner.as_deref().filter(|owner| *owner != self.server.user())
    }

    fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or_else(|| self.server.user())
    }
}

/// What [`DatabaseRestore::create`] found.
#[derive(Debug)]
pub enum Start {
    /// An empty database: everything is to be loaded.
    Empty(Box<DatabaseRestore>),
    /// An earlier run with the same bundle has loaded it to the end: its entries can be left out.
    Loaded,
}

/// The restore of one database.
#[derive(Debug)]
pub struct DatabaseRestore {
    target: Target,
    properties: DatabaseProperties,
    sessions: Sessions,
    pre_data: Option<Script>,
    loader: Loader,
    large_objects: Option<Script>,
    sequences: Option<Script>,
    post_data: Option<PostData>,
}

impl DatabaseRestore {
    /// Checks that the restore can work, and creates the database, or takes an empty one.
    ///
    /// # Errors
    /// [`RestoreError`]s of class *refused* and *credentials* before anything is changed; what the server says.
    pub async fn create(target: Target, properties: &DatabaseProperties) -> Result<Start, Error> {
        if create::create(&target, properties).await? == create::State::Loaded {
            return Ok(Start::Loaded);
        }
        let sessions = Sessions::open(&target).await?;
        Ok(Start::Empty(Box::new(Self {
            loader: Loader::default(),
            properties: properties.clone(),
            sessions,
            pre_data: Some(Script::new("pre-data.sql")),
            large_objects: Some(Script::new("large-objects")),
            sequences: Some(Script::new("sequences.sql")),
            post_data: None,
            target,
        })))
    }

    /// Takes the entry at `path`, which is relative to the attempt's folder, e.g. `data/00001/00000000`.
    ///
    /// # Errors
    /// What the server says to it, or to an earlier one; [`RestoreError`]s of class *damaged*.
    pub async fn entry(&mut self, path: &str, body: Bytes) -> Result<(), Error> {
        // A file that did not fit into one entry is a folder of pieces.
        let (kind, rest) = path.split_once('/').unwrap_or((path.strip_suffix(".sql").unwrap_or(path), ""));
        if !matches!(kind, "pre-data" | "settings.json" | "globals" | "owners-and-grants" | "create") {
            self.end_pre_data()?;
        }
        match kind {
            "settings.json" | "globals" | "owners-and-grants" | "tables.tsv" | "create" => Ok(()),
            "pre-data" => match &mut self.pre_data {
                Some(script) => self.sessions.run(script, &body).await,
                None => Err(unexpected(path)),
            },
            "data" => {
                let number = rest.split('/').next().and_then(|number| number.parse().ok());
                let number = number.ok_or_else(|| unexpected(path))?;
                self.loader.piece(&mut self.sessions, number, body).await
            }
            "large-objects" => match &mut self.large_objects {
                Some(script) => self.sessions.run(script, &body).await,
                None => Err(unexpected(path)),
            },
            "sequences" => match &mut self.sequences {
                Some(script) => self.sessions.run(script, &body).await,
                None => Err(unexpected(path)),
            },
            "post-data" => {
                if self.post_data.is_none() {
                    self.end_data().await?;
                }
                self.post_data.get_or_insert_with(PostData::default).take(&mut self.sessions, &body).await
            }
            _ => Err(unexpected(path)),
        }
    }

    /// Does what is left when all entries were taken: the last constraints, settings, ANALYZE; checks that `manifest`'s
    /// row counts were loaded and that the owner may use everything. Then the database is marked as loaded, until
    /// [`release`]. Returns what could not be done as at the source, in words.
    ///
    /// # Errors
    /// As [`DatabaseRestore::entry`]; [`RestoreError::RowCount`], [`RestoreError::OwnerLacks`].
    pub async fn finish(mut self, manifest: &manifest::Database) -> Result<Vec<String>, Error> {
        self.end_pre_data()?;
        self.end_data().await?;
        let event_triggers = match self.post_data.take() {
            Some(post_data) => post_data.finish(&mut self.sessions).await?,
            None => Vec::new(),
        };
        for table in &manifest.tables {
            let found = self.loader.rows(table.number);
            if found != Some(table.rows) {
                let table_name = quote_qualified(&table.schema, &table.name);
                let (found, wanted) = (found.unwrap_or(0), table.rows);
                return Err(RestoreError::RowCount { table: table_name, found, wanted }.into());
            }
        }
        self.sessions.dismiss().await?;
        let mut warnings = settings::apply(&self.target, &self.properties).await?;
        warnings.extend(self.sessions.take_warnings());
        let session = self.sessions.take().await?;
        let statements = analyze::statements(&session).await?;
        self.sessions.put(session);
        self.sessions.run_at_once(statements, "").await?;
        self.sessions.dismiss().await?;
        create::check_owner(&self.target.server.connect(&self.target.database).await?, &self.target).await?;
        self.sessions.run_statements(event_triggers).await?;
        mark::mark_loaded(self.sessions.witness().await?, &self.target).await?;
        Ok(warnings)
    }

    fn end_pre_data(&mut self) -> Result<(), Error> {
        Ok(self.pre_data.take().map_or(Ok(()), Script::finish)?)
    }

    /// Waits until all rows are in.
    async fn end_data(&mut self) -> Result<(), Error> {
        self.loader.finish(&mut self.sessions).await?;
        for script in [self.large_objects.take(), self.sequences.take()].into_iter().flatten() {
            script.finish()?;
        }
        Ok(())
    }
}

fn unexpected(path: &str) -> Error {
    RestoreError::UnexpectedEntry { path: path.to_owned() }.into()
}
