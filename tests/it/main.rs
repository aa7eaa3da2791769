//! Black-box tests against real servers; one module a subject.

// Tests may fail by panicking; clippy cannot tell helpers of integration tests from the program.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod database_dump;
mod database_restore;
mod postgres_connection;
mod support;
