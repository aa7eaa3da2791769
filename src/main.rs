//! The command `pacharc`. Everything is in the library; see `src/cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pacharc::cli::main(std::env::args_os())
}
