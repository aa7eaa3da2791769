//! PostgreSQL: how pacharc connects to a server, which of its programs it uses, and how a database comes back.
//!
//! A [`Server`] is found from a URL, the environment, a service file and a password file by libpq's rules, so that
//! pacharc and the pg_dump and psql it starts always speak to the same server in the same way.

mod connection;
mod conninfo;
mod environment;
mod error;
mod parameters;
mod passfile;
mod resolve;
mod service;
mod session;
mod tls;
mod tools;

pub use connection::Server;
pub use environment::Environment;
pub use error::Error;
pub use parameters::{PARAMETERS, Parameter, Support, parameter_table};
pub use session::{SESSION_SETTINGS, Session};
pub use tools::{Tool, Tools};
