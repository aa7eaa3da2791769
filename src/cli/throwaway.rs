//! `pacharc throwaway`: started by pacharc alone, see `src/database/throwaway`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use crate::database::throwaway::{Keeper, Shim, ThrowawayError};

/// Keep a throwaway PostgreSQL server, or become one of its programs
#[derive(Args, Debug)]
pub(super) struct Throwaway {
    /// The server's program
    #[arg(long, required_unless_present = "parent")]
    postgres: Option<PathBuf>,
    /// What is removed at the end
    #[arg(long)]
    folder: Vec<PathBuf>,
    /// Where its socket is
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Whom it runs as
    #[arg(long, value_name = "UID:GID", value_parser = account)]
    run_as: Option<(u32, u32)>,
    /// The keeper, of whom this is to be a child
    #[arg(long, value_name = "PID")]
    parent: Option<u32>,
    /// What to become
    #[arg(last = true)]
    program: Vec<OsString>,
}

fn account(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "two numbers, as in 101:104".to_owned())
}

impl Throwaway {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { postgres, folder: folders, socket, run_as, parent, program } = self;
        if let Some(parent) = parent {
            return Err(ThrowawayError::Keeper(Shim { run_as, parent, program }.become_program()).into());
        }
        let (postgres, socket) = (postgres.unwrap_or_default(), socket.unwrap_or_default());
        Ok(Keeper { postgres, folders, socket, run_as }.keep().map_err(ThrowawayError::Keeper)?)
    }
}
