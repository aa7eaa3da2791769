//! What the live set of the dumped snapshot says of each entry: a merge of two sorted streams.

use pacharc_format::manifest::Objects;
use pacharc_format::{CatalogWriter, IndexLine, Key, Sorted, Spool, State};
use tokio::io::AsyncWrite;

use super::Error;

/// Writes the catalog from the bundle's `entries`. `live` is the live set by path, or `None` where no database is
/// Pachyderm's: then there is nothing to compare with.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    catalog: &mut CatalogWriter<W>,
    entries: Sorted,
    live: Option<&mut Spool>,
) -> Result<Objects, Error> {
    let mut objects = Objects { closed: live.is_some().then_some(true), ..Objects::default() };
    let has_live_set = live.is_some();
    let mut live = live.map(Spool::sorted).transpose()?.into_iter().flatten();
    let mut next_live = next(&mut live)?;
    for entry in entries {
        let (path, json) = entry?;
        while let Some((live_path, size)) = next_live.take_if(|(live_path, _)| *live_path < path) {
            missing(catalog, &mut objects, &live_path, size).await?;
            next_live = next(&mut live)?;
        }
        let is_live = next_live.take_if(|(live_path, _)| *live_path == path).is_some();
        if is_live {
            next_live = next(&mut live)?;
        }
        let json = text(json)?;
        let line: IndexLine = serde_json::from_str(&json).map_err(|e| Error::Worker(e.to_string()))?;
        let state = match Key::from_path(&line.path) {
            None => State::File,
            Some(_) if !has_live_set => State::Object,
            Some(_) if is_live && line.rotten => State::Rotten,
            Some(_) if is_live => State::Live,
            Some(key) if key.chunk().is_some() => State::Orphan,
            Some(_) => State::Foreign,
        };
        match state {
            State::Live | State::Object => objects.live.add(line.size),
            State::Rotten => objects.rotten.add(line.size),
            State::Orphan => objects.orphan.add(line.size),
            State::Foreign => objects.foreign.add(line.size),
            State::File | State::Missing => {}
        }
        catalog.push(state, &line.path, &json).await?;
    }
    while let Some((path, size)) = next_live {
        missing(catalog, &mut objects, &path, size).await?;
        next_live = next(&mut live)?;
    }
    objects.closed = has_live_set.then_some(objects.missing.count == 0 && objects.rotten.count == 0);
    Ok(objects)
}

async fn missing<W: AsyncWrite + Unpin>(
    catalog: &mut CatalogWriter<W>,
    objects: &mut Objects,
    path: &[u8],
    size: u64,
) -> Result<(), Error> {
    objects.missing.add(size);
    Ok(catalog.push_missing(&text(path.to_vec())?, size).await?)
}

/// The next live object's path and size.
fn next(
    live: &mut impl Iterator<Item = pacharc_format::Result<pacharc_format::Record>>,
) -> Result<Option<(Vec<u8>, u64)>, Error> {
    let Some((path, size)) = live.next().transpose()? else { return Ok(None) };
    let size = size.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(Some((path, size)))
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|e| Error::Worker(e.to_string()))
}
