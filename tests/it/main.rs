//! Black-box tests against real servers; one module a subject.

mod postgres_connection;
mod support;
