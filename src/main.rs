//! The command `pacharc`. Everything is in the library; see `src/cli`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// glibc's allocator keeps what is freed: each large buffer raises the size up to which it does so, in the heap of each
/// thread apart. jemalloc gives it back, without which `--max-memory` would not hold.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    pacharc::cli::main(std::env::args_os())
}
