//! The command `pacharc`. Everything is in the library; see `src/cli`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Segments come and go in many threads. glibc and mimalloc keep what was freed (530 and 430 MB at the peak where 170
/// are in use), jemalloc gives it back (190 MB; `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    pacharc::cli::main(std::env::args_os())
}
