//! Black-box tests against real servers; one module a subject.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bucket_conformance;
mod bucket_directory;
mod bucket_environment;
mod bucket_faults;
mod cli;
mod closed;
mod closure;
mod cluster_state;
mod collected;
mod damage_matrix;
mod database_dump;
mod database_restore;
mod deploy;
mod discover;
mod docs;
mod during_dump;
mod hostile_names;
mod keep_going;
mod large;
mod live_writer;
mod namespace_backup;
mod odd_keys;
mod pipes;
mod postgres_connection;
mod quiesce;
mod quiet;
mod restore_again;
mod restore_namespace;
mod round_trip;
mod secrets;
mod signals;
mod stock_tools;
mod support;
mod suspend;
mod suspend_killed;
mod suspension;
mod tampered;
mod which_source;
mod wrong_bundles;
mod wrong_inputs;
