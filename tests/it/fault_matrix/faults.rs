//! What goes wrong, and where.

use crate::support::fault_server::Fault as Answer;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Backup,
    Restore,
}

/// A step of a job, and what its first line of standard output that tells of it contains.
pub type Stage = (&'static str, &'static str);

const BACKUP: [Stage; 7] = [
    ("check", r#""phase":"check""#),
    ("copy", r#""phase":"copy""#),
    ("snapshot", r#""phase":"snapshot""#),
    ("delta", r#""phase":"delta""#),
    ("dump", r#""phase":"dump""#),
    ("finish", r#""phase":"finish""#),
    ("told", r#""event":"finished""#),
];

const RESTORE: [Stage; 6] = [
    ("check", r#""phase":"check""#),
    ("sums", r#""phase":"sums""#),
    ("unpack", r#""phase":"unpack""#),
    ("indexes", r#""phase":"indexes""#),
    ("prove", r#""phase":"prove""#),
    ("told", r#""event":"finished""#),
];

impl Job {
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Backup => &BACKUP,
            Self::Restore => &RESTORE,
        }
    }

    /// The rows of its table.
    pub fn faults(self) -> Vec<(&'static str, Fault)> {
        FAULTS.iter().filter(|(_, _, jobs)| jobs.contains(&self)).map(|&(name, fault, _)| (name, fault)).collect()
    }
}

/// What goes wrong, once, from the moment on at which the job stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This signal comes.
    Signal(&'static str),
    /// The decorator of the job (`faulty.c`) does this.
    Own(char),
    /// The decorator of the target's PostgreSQL does this.
    Server(char),
    /// Not one file more can be opened.
    NoFiles,
    /// The next listing is answered so.
    Listing(Answer),
    /// The next request for one certain object is answered so: the read of a backup, the write of a restore.
    Object(Answer),
    /// PostgreSQL is stopped at once, as if killed; and is back before the job goes on, or when it has ended.
    Killed { is_back: bool },
    /// The sessions of the job are ended.
    Sessions,
    /// The next pg_dump or psql dies: at once, or in the middle of its work.
    Child { at_work: bool },
}

impl Fault {
    /// Whether a request that it meets must be made again.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Listing(answer) | Self::Object(answer) if !matches!(answer, Answer::Late(_)))
    }
}

const BOTH: &[Job] = &[Job::Backup, Job::Restore];
const BACKUP_ALONE: &[Job] = &[Job::Backup];
const RESTORE_ALONE: &[Job] = &[Job::Restore];

const FAULTS: [(&str, Fault, &[Job]); 26] = [
    ("SIGKILL", Fault::Signal("KILL"), BOTH),
    ("SIGINT", Fault::Signal("INT"), BOTH),
    ("SIGTERM", Fault::Signal("TERM"), BOTH),
    ("writes: ENOSPC", Fault::Own('N'), BOTH),
    ("writes: EIO", Fault::Own('E'), BOTH),
    ("writes: all are short", Fault::Own('S'), BOTH),
    ("fsync: EIO", Fault::Own('F'), BOTH),
    ("no more files (EMFILE)", Fault::NoFiles, BOTH),
    ("the clock jumps ahead, a day", Fault::Own('+'), BOTH),
    ("the clock jumps back, a day", Fault::Own('-'), BOTH),
    ("listing: 500", Fault::Listing(Answer::Refuse(500, "InternalError")), BOTH),
    ("listing: connection lost", Fault::Listing(Answer::Lost), BOTH),
    ("listing: cut off", Fault::Listing(Answer::Cut(40)), BOTH),
    ("object: 500", Fault::Object(Answer::Refuse(500, "InternalError")), BOTH),
    ("object: 503", Fault::Object(Answer::Refuse(503, "SlowDown")), BOTH),
    ("object: connection lost", Fault::Object(Answer::Lost), BOTH),
    ("object: a second late", Fault::Object(Answer::Late(1000)), BOTH),
    ("object: cut off", Fault::Object(Answer::Cut(40)), BACKUP_ALONE),
    ("object: wrong length", Fault::Object(Answer::Short(40)), BACKUP_ALONE),
    ("object: wrong bytes", Fault::Object(Answer::Flip), BACKUP_ALONE),
    ("PostgreSQL killed, and back", Fault::Killed { is_back: true }, BOTH),
    ("PostgreSQL killed, and gone", Fault::Killed { is_back: false }, BOTH),
    ("PostgreSQL: sessions ended", Fault::Sessions, BOTH),
    ("PostgreSQL: disk full", Fault::Server('N'), RESTORE_ALONE),
    ("child killed at its start", Fault::Child { at_work: false }, BOTH),
    ("child killed at its work", Fault::Child { at_work: true }, BOTH),
];
