//! PostgreSQL: how pacharc connects to a server, which of its programs it uses, how a database is read, and how it comes
//! back.
//!
//! A [`Server`] is found from a URL, the environment, a service file and a password file by libpq's rules, so that
//! pacharc and the pg_dump and psql it starts always speak to the same server in the same way.

mod account;
mod attempt;
pub mod catalog;
mod check;
mod child;
mod completed;
mod connection;
mod conninfo;
mod data;
mod database_dump;
mod dump;
mod dump_error;
mod endpoint;
mod environment;
mod error;
mod live;
mod parameters;
mod passfile;
mod pieces;
mod quiet;
mod resolve;
pub mod restore;
mod script;
mod service;
mod session;
mod settings;
mod snapshot;
mod statement;
mod survey;
pub mod throwaway;
mod tls;
mod tools;
mod utf8;

pub use attempt::Attempt;
pub use completed::{complete, names_server};
pub use connection::Server;
pub(crate) use conninfo::parse as parse_conninfo;
pub(crate) use data::broken_rows;
pub use database_dump::folder as folder_name;
pub use dump::Progress;
pub use dump_error::DumpError;
pub use environment::Environment;
pub use error::Error;
pub use live::{LiveChunk, LiveRows, still_live};
pub use parameters::{PARAMETERS, Parameter, Support, parameter_table};
pub use quiet::{ForeignSession, foreign_sessions};
pub use script::ScriptError;
pub(crate) use script::ScriptReader;
pub use session::{SESSION_SETTINGS, Session};
pub use settings::DumpSettings;
pub use snapshot::Snapshot;
pub(crate) use statement::{Statement, copy as copy_statement};
pub use survey::{DatabaseSurvey, inspect, inspect_or};
pub use tools::{Tool, Tools};
