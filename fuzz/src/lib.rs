//! Hostile input for every parser: nothing panics, hangs, or takes more memory than its limits allow.
//!
//! A target is a plain function of bytes. `tests/replay.rs` gives it its seeds, what was once found (`regressions/`), and
//! seeded random changes of both, on any compiler; cargo-fuzz gives it what it finds itself (`make fuzz`).

mod bundle;
mod mutate;
mod seeds;
mod targets;

pub use mutate::Mutator;
pub use seeds::seeds;
pub use targets::{TARGETS, run};
