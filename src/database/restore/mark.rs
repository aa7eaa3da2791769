//! The mark of a restore: what a database's comment says until it is proved, and so what the next run may do with it.

use super::Target;
use super::create::{find, maintenance};
use super::settings::literal;
use crate::database::catalog::quote_identifier;
use crate::database::{Error, Session};

/// What a database's comment says while a restore is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark<'a> {
    pub(super) bundle: &'a str,
    pub(super) stage: &'a str,
}

pub(super) const UNDER_WAY_CREATED: &str = "under way, in a database made for it";
pub(super) const UNDER_WAY_FOUND: &str = "under way, in a database that was there";
pub(super) const LOADED_CREATED: &str = "loaded, to be proved, in a database made for it";
/// Former versions call every loaded one so: it may have been there.
pub(super) const LOADED_FOUND: &str = "loaded, to be proved";

impl<'a> Mark<'a> {
    pub(super) fn parse(comment: &'a str) -> Option<Self> {
        let (bundle, stage) = comment.strip_prefix("pacharc restore of ")?.split_once(": ")?;
        Some(Self { bundle, stage })
    }
}

/// Whether a database's comment says that a restore of it is not done.
pub(crate) fn is_mark(comment: &str) -> bool {
    Mark::parse(comment).is_some()
}

impl std::fmt::Display for Mark<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pacharc restore of {}: {}", self.bundle, self.stage)
    }
}

/// Marks the database as loaded to its end.
pub(super) async fn mark_loaded(session: &Session, target: &Target) -> Result<(), Error> {
    let loaded = match stage(session, target).await?.as_deref() {
        Some(UNDER_WAY_CREATED) => LOADED_CREATED,
        _ => LOADED_FOUND,
    };
    set_mark(session, target, loaded).await
}

/// Takes back that the database is loaded: it proved wrong, and the next run loads it anew, or says that it must be dropped.
///
/// # Errors
/// What the server says.
pub async fn unload(target: &Target) -> Result<(), Error> {
    let session = maintenance(&target.server, &[&target.database]).await?;
    let under_way = match stage(&session, target).await?.as_deref() {
        Some(LOADED_CREATED) => UNDER_WAY_CREATED,
        Some(LOADED_FOUND) => UNDER_WAY_FOUND,
        // Released by a run before this one.
        _ => return Ok(()),
    };
    set_mark(&session, target, under_way).await
}

/// The stage that the mark of this restore names.
async fn stage(session: &Session, target: &Target) -> Result<Option<String>, Error> {
    let comment = find(session, &target.database).await?.and_then(|found| found.comment);
    let mark = comment.as_deref().and_then(Mark::parse).filter(|mark| mark.bundle == target.mark);
    Ok(mark.map(|mark| mark.stage.to_owned()))
}

pub(super) async fn set_mark(session: &Session, target: &Target, stage: &str) -> Result<(), Error> {
    let mark = Mark { bundle: &target.mark, stage }.to_string();
    comment(session, &target.database, Some(&mark)).await
}

async fn comment(session: &Session, database: &str, comment: Option<&str>) -> Result<(), Error> {
    let sql = comment_sql(database, comment);
    session.batch_execute(&sql).await.map_err(Error::query(format!("cannot mark database \"{database}\"")))
}

pub(super) fn comment_sql(database: &str, comment: Option<&str>) -> String {
    let comment = comment.map_or("NULL".to_owned(), literal);
    format!("COMMENT ON DATABASE {} IS {comment};", quote_identifier(database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let mark = Mark { bundle: "x-1", stage: LOADED_FOUND };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        assert_eq!(Mark::parse("default administrative connection database"), None);
        for stage in [UNDER_WAY_CREATED, UNDER_WAY_FOUND, LOADED_CREATED, LOADED_FOUND, "of another version"] {
            assert!(is_mark(&Mark { bundle: "x-1", stage }.to_string()), "{stage}");
        }
        assert!(!is_mark("pacharc restores into it each night"));
    }
}
