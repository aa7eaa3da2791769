//! Servers that keep objects in files may take one key for another: `a//b` for `a/b`, without a word. Writing such a key would
//! overwrite somebody else's object. So before the first key of such a kind, an object of a unique name is written, looked
//! for in a listing, and deleted again; whoever changed its name is given no such key.

use bytes::Bytes;
use futures::stream::TryStreamExt as _;
use pacharc_format::{Key, Metadata};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{Bucket as _, Error, S3};

/// The kinds of keys that have been seen to change.
#[derive(Clone, Copy)]
enum Kind {
    LeadingSlash,
    DoubleSlash,
    Dot,
    DotDot,
}

/// What is known about a server; asked for at most once for each kind.
#[derive(Default)]
pub(super) struct Fidelity([OnceCell<bool>; 4]);

impl Kind {
    const ALL: [Self; 4] = [Self::LeadingSlash, Self::DoubleSlash, Self::Dot, Self::DotDot];

    fn is(self, key: &Key) -> bool {
        let mut components = key.as_bytes().split(|&b| b == b'/');
        match self {
            Self::LeadingSlash => key.as_bytes().starts_with(b"/"),
            Self::DoubleSlash => key.as_bytes().windows(2).any(|pair| pair == b"//"),
            Self::Dot => components.any(|component| component == b"."),
            Self::DotDot => components.any(|component| component == b".."),
        }
    }

    fn example(self) -> Key {
        let name = format!("pacharc-probe-{}", Uuid::new_v4().simple());
        Key::new(match self {
            Self::LeadingSlash => format!("/{name}"),
            Self::DoubleSlash => format!("{name}//x"),
            Self::Dot => format!("{name}/./x"),
            Self::DotDot => format!("{name}/../{name}"),
        })
    }
}

impl S3 {
    /// Fails for a key that the server would take for another one.
    pub(super) async fn check_fidelity(&self, key: &Key) -> Result<(), Error> {
        for (kind, known) in Kind::ALL.into_iter().zip(&self.0.fidelity.0) {
            if kind.is(key) && !*known.get_or_try_init(|| self.keeps(kind)).await? {
                let (bucket, key) = (self.0.url.clone(), key.clone());
                let reason = "the server would store it under another key".to_owned();
                return Err(Error::InvalidKey { bucket, key, reason });
            }
        }
        Ok(())
    }

    /// Whether the server keeps keys of this kind as they are, or refuses them: then it says so for each.
    async fn keeps(&self, kind: Kind) -> Result<bool, Error> {
        let key = kind.example();
        let name = self.name(&key)?;
        let none = Metadata::default();
        let put = || self.put_once(&key, &name, &none, Bytes::new(), true);
        match self.policy().run(put).await {
            Ok(()) => {}
            Err(Error::Failed { .. } | Error::InvalidKey { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
        let listed: Vec<_> = self.list(key.as_bytes()).try_collect().await?;
        self.delete_name(&key, &name).await?;
        Ok(listed.iter().any(|listed| listed.key == key))
    }
}
