//! Black-box tests against real servers.

mod bucket_conformance;
mod support;
