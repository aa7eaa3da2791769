//! PostgreSQL.
pub mod catalog;
pub mod copy;
pub mod fingerprint;
pub mod pieces;
pub mod statement;
