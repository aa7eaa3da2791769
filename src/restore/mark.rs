//! The mark in the bucket of a restore: until all is proved, it says which bundle comes there, and which run brings it. A run that
//! goes on for another sets its own; the other one, should it live, ends when it sees that, and leaves it alone.

use bytes::Bytes;
use futures::StreamExt;
use pacharc_format::{Key, Metadata};
use uuid::Uuid;

use super::Error;
use crate::bucket::{self, Bucket};

/// The key of the object that marks a bucket while a restore is under way.
pub(crate) const MARK: &str = "pacharc.restoring";
/// What is deleted, and was never there, to find out whether the mark could be.
const PROBE: &str = "pacharc.restoring.probe";

/// What is added to the mark when all is proved.
const PROVED: &str = "proved\n";
/// Bytes of a mark that are read.
const LENGTH: usize = 4096;

/// What an earlier run of the same restore has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Whether it had proved everything: its databases may have been released already.
    pub(super) was_proved: bool,
}

impl Left {
    /// Looks for it in the bucket.
    ///
    /// # Errors
    /// [`Error::OtherRestore`] where another bundle comes there; the bucket's.
    pub(super) async fn find(bucket: &dyn Bucket, bundle: Uuid) -> Result<Option<Self>, Error> {
        match read(bucket).await? {
            None => Ok(None),
            Some(found) => Self::parse(&found, bundle).map(Some).ok_or_else(|| other_restore(bucket, &found)),
        }
    }

    /// `None` where it is the mark of another bundle. Former versions have set marks without a run.
    fn parse(mark: &str, bundle: Uuid) -> Option<Self> {
        mark.starts_with(&first_line(bundle)).then(|| Self { was_proved: mark.ends_with(PROVED) })
    }
}

/// The mark of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    bundle: Uuid,
    run: Uuid,
    is_proved: bool,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bundle, run, is_proved } = self;
        write!(f, "{}run {run}\n{}", first_line(*bundle), if *is_proved { PROVED } else { "" })
    }
}

impl Mark {
    /// Marks the bucket for a run of its own, over what an earlier one has `left`. Of two that have found nothing at once, one
    /// goes on.
    ///
    /// # Errors
    /// [`Error::OtherRestore`]; the bucket's.
    pub(super) async fn set(bucket: &dyn Bucket, bundle: Uuid, left: Option<Left>) -> Result<Self, Error> {
        let mark = Self { bundle, run: Uuid::new_v4(), is_proved: left.is_some_and(|left| left.was_proved) };
        match left {
            Some(_) => mark.put(bucket).await?,
            None => match bucket.put_new(&Key::from(MARK), &metadata(), Bytes::from(mark.to_string())).await {
                Err(bucket::Error::Exists { .. }) => {}
                put => put?,
            },
        }
        // Another one may have put its mark over this one: where a run goes on, and at servers that know no condition.
        match mark.read_again(bucket).await? {
            Some(found) if found == mark.to_string() => Ok(mark),
            found => Err(other_restore(bucket, &found.unwrap_or_default())),
        }
    }

    /// Makes sure that no other run has set its own since.
    ///
    /// # Errors
    /// [`Error::TakenOver`]; the bucket's.
    pub(super) async fn check(&self, bucket: &dyn Bucket) -> Result<(), Error> {
        let found = match self.read_again(bucket).await? {
            Some(found) if found == self.to_string() => return Ok(()),
            Some(found) => found.lines().collect::<Vec<_>>().join(", "),
            None => "it is gone".to_owned(),
        };
        Err(Error::TakenOver { bucket: bucket.url().to_owned(), found })
    }

    /// Says that all is proved. Databases lose their marks before the bucket does: a run that comes in between does not take
    /// them for somebody else's.
    ///
    /// # Errors
    /// As [`Mark::check`].
    pub(super) async fn prove(&mut self, bucket: &dyn Bucket) -> Result<(), Error> {
        self.check(bucket).await?;
        self.is_proved = true;
        self.put(bucket).await
    }

    /// Takes it away.
    ///
    /// # Errors
    /// As [`Mark::check`]; [`Error::MarkStays`].
    pub(super) async fn remove(&self, bucket: &dyn Bucket) -> Result<(), Error> {
        self.check(bucket).await?;
        bucket.delete(&Key::from(MARK)).await.map_err(|error| Error::MarkStays(Box::new(error)))
    }

    /// What the mark says now. Another one is read once more before it is believed: work of hours ends with that.
    async fn read_again(&self, bucket: &dyn Bucket) -> Result<Option<String>, Error> {
        match read(bucket).await? {
            Some(found) if found == self.to_string() => Ok(Some(found)),
            _ => read(bucket).await,
        }
    }

    async fn put(&self, bucket: &dyn Bucket) -> Result<(), Error> {
        Ok(bucket.put(&Key::from(MARK), &metadata(), Bytes::from(self.to_string())).await?)
    }
}

/// Makes sure, before there is a mark, that these credentials could take it away: at the end that would be learnt too late.
///
/// # Errors
/// [`Error::MayNotDelete`]; the bucket's.
pub(super) async fn try_deleting(bucket: &dyn Bucket) -> Result<(), Error> {
    match bucket.delete(&Key::from(PROBE)).await {
        Err(error @ bucket::Error::Denied { .. }) => Err(Error::MayNotDelete(Box::new(error))),
        deleted => Ok(deleted?),
    }
}

/// Whether `key` is the mark's.
pub(super) fn is_mark(key: &Key) -> bool {
    key.as_str() == Some(MARK)
}

fn first_line(bundle: Uuid) -> String {
    format!("pacharc restore of bundle {bundle}\n")
}

fn metadata() -> Metadata {
    Metadata { content_type: Some("text/plain".into()), ..Metadata::default() }
}

/// The refusal of a bucket with this mark.
fn other_restore(bucket: &dyn Bucket, mark: &str) -> Error {
    let mark = mark.lines().next().unwrap_or_default().to_owned();
    Error::OtherRestore { bucket: bucket.url().to_owned(), mark }
}

async fn read(bucket: &dyn Bucket) -> Result<Option<String>, Error> {
    match bucket.get(&Key::from(MARK)).await {
        Err(bucket::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(object) => {
            let mut text = Vec::new();
            let mut body = object.body;
            while let Some(bytes) = body.next().await {
                let bytes = bytes?;
                let room = LENGTH.saturating_sub(text.len());
                text.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
            }
            Ok(Some(String::from_utf8_lossy(&text).into_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_every_version_are_known() {
        let (bundle, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mark = |is_proved| Mark { bundle, run: other, is_proved }.to_string();
        let first = format!("pacharc restore of bundle {bundle}\n");
        // Former versions told no run, or forgot it when all was proved.
        for (text, left) in [
            (mark(false), Some(false)),
            (mark(true), Some(true)),
            (first.clone(), Some(false)),
            (format!("{first}run {other}\n"), Some(false)),
            (format!("{first}proved\n"), Some(true)),
            (format!("pacharc restore of bundle {other}\nrun {bundle}\n"), None),
            (String::new(), None),
        ] {
            assert_eq!(Left::parse(&text, bundle).map(|left| left.was_proved), left, "{text}");
        }
        assert_eq!(mark(true), format!("{first}run {other}\nproved\n"));
    }
}
