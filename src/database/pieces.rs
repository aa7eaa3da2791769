//! Cuts a stream of text into entries: at a row's end where the row fits, and nowhere else than at the limit where not.

use std::mem::take;

use pacharc_format::Entry;

use crate::feed::{Buffer, Closed, Feed};

/// Writes `<folder>/<number>` entries, numbered from `00000000`, which joined are what was written.
///
/// It holds one buffer of the feed while it is being filled, and none while it waits for one; the unfinished row at a
/// cut, which is shorter than a piece, is kept outside of the feed's budget meanwhile.
#[derive(Debug)]
pub struct PieceWriter {
    feed: Feed,
    folder: String,
    /// The path to use where everything fits into one piece.
    alone: Option<String>,
    limit: usize,
    buffer: Option<Buffer>,
    /// Where the last complete row in `buffer` ends.
    row_end: usize,
    /// How many were sent.
    sent: u32,
}

impl PieceWriter {
    /// Pieces of at most `limit` bytes below `folder`.
    #[must_use]
    pub fn new(feed: &Feed, folder: String, limit: usize) -> Self {
        let limit = limit.min(feed.piece_limit());
        Self { feed: feed.clone(), folder, alone: None, limit, buffer: None, row_end: 0, sent: 0 }
    }

    /// A file: the entry `path` where it fits into one, or else pieces in a folder named as `path` without `.sql`.
    #[must_use]
    pub fn file(feed: &Feed, path: &str) -> Self {
        let folder = path.strip_suffix(".sql").unwrap_or(path).to_owned();
        Self { alone: Some(path.to_owned()), ..Self::new(feed, folder, feed.piece_limit()) }
    }

    /// Appends `text`.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes the bundle any more.
    pub async fn write(&mut self, mut text: &[u8]) -> Result<(), Closed> {
        while !text.is_empty() {
            (_, text) = self.append(text).await?;
        }
        Ok(())
    }

    /// Appends rows, each with its line end: a good place for a cut. The last one may go on with what is written next.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes the bundle any more.
    pub async fn write_rows(&mut self, mut rows: &[u8]) -> Result<(), Closed> {
        while !rows.is_empty() {
            let (begin, later) = self.append(rows).await?;
            let appended = rows.len() - later.len();
            if let Some(end) = memchr::memrchr(b'\n', &rows[..appended]) {
                self.row_end = begin + end + 1;
            }
            rows = later;
        }
        Ok(())
    }

    /// Says that a row ends here: a good place for a cut.
    pub fn end_row(&mut self) {
        self.row_end = self.buffer.as_ref().map_or(0, |buffer| buffer.bytes.len());
    }

    /// Sends what is left, an empty entry where nothing was written at all, and says how many pieces there are.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes the bundle any more.
    pub async fn finish(mut self) -> Result<u32, Closed> {
        let path = match self.alone.take() {
            Some(path) if self.sent == 0 => path,
            _ => self.path(),
        };
        let body = self.buffer.take().map(Buffer::freeze).unwrap_or_default();
        self.feed.send(Entry::text(path, body)).await?;
        Ok(self.sent + 1)
    }

    /// Appends what of `text` there is room for in one piece; returns where in it that begins, and what is left.
    async fn append<'a>(&mut self, text: &'a [u8]) -> Result<(usize, &'a [u8]), Closed> {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.bytes.len() == self.limit) {
            self.cut().await?;
        }
        let limit = self.limit;
        let bytes = &mut self.buffer().await?.bytes;
        let begin = bytes.len();
        let (now, later) = text.split_at(text.len().min(limit - begin));
        bytes.extend_from_slice(now);
        Ok((begin, later))
    }

    async fn cut(&mut self) -> Result<(), Closed> {
        let Some(mut buffer) = self.buffer.take() else { return Ok(()) };
        let row_end = take(&mut self.row_end);
        // A row that began with the piece does not fit into one: it is cut wherever the piece is full.
        let row = if row_end == 0 { Vec::new() } else { buffer.bytes.split_off(row_end) };
        let path = self.path();
        self.feed.send(Entry::text(path, buffer.freeze())).await?;
        self.sent += 1;
        if !row.is_empty() {
            self.buffer().await?.bytes.extend_from_slice(&row);
        }
        Ok(())
    }

    async fn buffer(&mut self) -> Result<&mut Buffer, Closed> {
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.feed.buffer(self.limit).await?,
        };
        Ok(self.buffer.insert(buffer))
    }

    fn path(&self) -> String {
        format!("{}/{:08}", self.folder, self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(rows: &[&str], limit: usize, file: bool) -> Vec<(String, String)> {
        let (feed, mut entries) = Feed::new(limit * 2, limit);
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        let writing = tokio::spawn(async move {
            let mut writer =
                if file { PieceWriter::file(&feed, "a.sql") } else { PieceWriter::new(&feed, "a".into(), limit) };
            for row in rows {
                writer.write(row.as_bytes()).await.unwrap();
                writer.end_row();
            }
            writer.finish().await.unwrap()
        });
        let mut found = Vec::new();
        while let Some(entry) = entries.recv().await {
            found.push((entry.path.clone(), String::from_utf8(entry.body.first().to_vec()).unwrap()));
        }
        assert_eq!(writing.await.unwrap() as usize, found.len());
        found
    }

    #[tokio::test]
    async fn cuts_at_rows_where_they_fit() {
        let bodies = |pieces: Vec<(String, String)>| pieces.into_iter().map(|(_, body)| body).collect::<Vec<_>>();
        assert_eq!(bodies(pieces(&["12", "345", "6", "78"], 4, false).await), ["12", "3456", "78"]);
        assert_eq!(bodies(pieces(&["1", "23456789", "a"], 4, false).await), ["1", "2345", "6789", "a"]);
        assert_eq!(bodies(pieces(&["1234", "5678"], 4, false).await), ["1234", "5678"]);
        assert_eq!(bodies(pieces(&["123456", "78", "9"], 4, false).await), ["1234", "5678", "9"]);
    }

    #[tokio::test]
    async fn rows_that_come_together_are_cut_as_one_by_one() {
        let rows = ["1\n", "2345678\n", "\n", "\n", "9\n", "ab\n", "cd\n", "efg\n", "hi\n"];
        for limit in 1..12 {
            let expected = pieces(&rows, limit, false).await;
            let text = rows.concat();
            for portion in 1..text.len() {
                let (feed, mut entries) = Feed::new(limit * 2, limit);
                let text = text.clone();
                let writing = tokio::spawn(async move {
                    let mut writer = PieceWriter::new(&feed, "a".into(), limit);
                    for rows in text.as_bytes().chunks(portion) {
                        writer.write_rows(rows).await.unwrap();
                    }
                    writer.finish().await.unwrap();
                });
                let mut found = Vec::new();
                while let Some(entry) = entries.recv().await {
                    found.push((entry.path.clone(), String::from_utf8(entry.body.first().to_vec()).unwrap()));
                }
                writing.await.unwrap();
                assert_eq!(found, expected, "{limit} {portion}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_alone_where_it_fits() {
        assert_eq!(pieces(&["12", "34"], 4, true).await, [("a.sql".into(), "1234".into())]);
        let two = pieces(&["12", "345"], 4, true).await;
        assert_eq!(two, [("a/00000000".into(), "12".into()), ("a/00000001".into(), "345".into())]);
        assert_eq!(pieces(&[], 4, true).await, [("a.sql".into(), String::new())]);
    }
}
