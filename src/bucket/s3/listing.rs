//! Listings, page by page. Each page is repeated on its own; a server that hands out the same page again and again is found
//! out instead of being listened to for ever.

use std::collections::{HashSet, VecDeque};
use std::io;

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object, ObjectStorageClass};
use futures::stream::{BoxStream, StreamExt as _};
use pacharc_format::Key;
use percent_encoding::percent_decode_str;

use super::answer::Asked;
use super::{Error, Listed, S3};

/// How many pages without a key may follow one another before it counts as a loop.
const EMPTY_PAGES: u32 = 1000;

/// The objects whose keys, below the bucket's prefix, begin with `prefix`.
pub(super) fn list(s3: S3, prefix: &[u8]) -> BoxStream<'static, Result<Listed, Error>> {
    // Keys of S3 are UTF-8: nothing begins with what is not.
    let Ok(prefix) = std::str::from_utf8(prefix) else { return futures::stream::empty().boxed() };
    let prefix = format!("{}{prefix}", s3.0.prefix);
    let pages = Pages {
        s3,
        prefix,
        token: None,
        done: false,
        loops: LoopDetector::default(),
        ready: VecDeque::new(),
        page: HashSet::new(),
    };
    futures::stream::try_unfold(pages, |mut pages| async move { Ok(pages.next().await?.map(|listed| (listed, pages))) })
        .boxed()
}

struct Pages {
    s3: S3,
    prefix: String,
    token: Option<String>,
    done: bool,
    loops: LoopDetector,
    ready: VecDeque<Listed>,
    /// The keys of the page before: some servers begin the next one with a few of them, or send it twice.
    page: HashSet<Key>,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Listed>, Error> {
        while self.ready.is_empty() && !self.done {
            self.turn().await?;
        }
        Ok(self.ready.pop_front())
    }

    /// Gets the next page.
    async fn turn(&mut self) -> Result<(), Error> {
        let page = self.s3.policy().run(|| self.page()).await?;
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let mut keys = HashSet::new();
        for object in page.contents() {
            let Some(listed) = self.listed(object, encoded)? else { continue };
            if keys.insert(listed.key.clone()) && !self.page.contains(&listed.key) {
                self.ready.push_back(listed);
            }
        }
        self.page = keys;
        self.done = !page.is_truncated().unwrap_or(false);
        self.token = page.next_continuation_token;
        if !self.done {
            // A page of the one before alone counts as empty.
            let first = self.ready.front().map(|listed| listed.key.clone());
            let Some(token) = &self.token else {
                return Err(self.contradiction("it goes on, but does not say where"));
            };
            self.loops.check(token, first.as_ref()).map_err(|reason| self.contradiction(reason))?;
        }
        Ok(())
    }

    async fn page(&self) -> Result<ListObjectsV2Output, Error> {
        let s3 = &self.s3;
        let request = s3.0.client.list_objects_v2().bucket(&s3.0.bucket).prefix(&self.prefix);
        // XML cannot carry every character: keys come percent-encoded.
        let request = request.encoding_type(EncodingType::Url).set_continuation_token(self.token.clone());
        let request = request.customize().interceptor(WholePage);
        s3.once(Asked::bucket("listing"), s3.patience(), request.send()).await
    }

    /// `None` for what some servers and consoles add: the prefix itself as an object without a name below it.
    fn listed(&self, object: &Object, encoded: bool) -> Result<Option<Listed>, Error> {
        let name = object.key().unwrap_or_default();
        let name: Vec<u8> = if encoded {
            // Amazon writes a space as `+`, and a plus as `%2B`.
            percent_decode_str(&name.replace('+', " ")).collect()
        } else {
            name.as_bytes().to_vec()
        };
        let Some(key) = name.strip_prefix(self.s3.0.prefix.as_bytes()) else {
            return Err(self.contradiction("it holds a key that does not begin with the prefix"));
        };
        if key.is_empty() {
            return Ok(None);
        }
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.contradiction("it holds an object without a size"))?;
        let archived =
            matches!(object.storage_class(), Some(ObjectStorageClass::Glacier | ObjectStorageClass::DeepArchive));
        Ok(Some(Listed { key: Key::new(key), size, etag: object.e_tag().map(str::to_owned), archived }))
    }

    fn contradiction(&self, reason: &'static str) -> Error {
        Error::Listing { bucket: self.s3.0.url.clone(), reason }
    }
}

/// Makes sure that a page has come with its end. The SDK takes XML that breaks off for a page of fewer keys, perhaps the last one:
/// what a proxy cut, and gave a length that fits, would be missing from a backup without a word.
#[derive(Debug)]
struct WholePage;

impl Intercept for WholePage {
    fn name(&self) -> &'static str {
        "WholePage"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        match !response.status().is_success() || is_ended(response.body().bytes().unwrap_or_default()) {
            true => Ok(()),
            // As one whose connection was closed: it is asked for again.
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the page of the listing has no end").into()),
        }
    }
}

/// Whether the last tag closes the page: cut behind the first one, it ends in the same word.
fn is_ended(page: &[u8]) -> bool {
    let page = page.trim_ascii_end();
    let last = page.iter().rposition(|&byte| byte == b'<').map_or(page, |at| &page[at..]);
    last.starts_with(b"</") && last.ends_with(b"ListBucketResult>")
}

/// Brent's algorithm: every page is compared with one that is kept, and which one is kept moves on at each power of two. It
/// finds any cycle, with the memory of one page's token and first key.
#[derive(Default)]
struct LoopDetector {
    kept: Option<(String, Option<Key>)>,
    pages: u64,
    empty: u32,
}

impl LoopDetector {
    /// Takes note of a page that is not the last: where it says that the listing goes on, and its first key.
    fn check(&mut self, token: &str, first: Option<&Key>) -> Result<(), &'static str> {
        self.empty = if first.is_some() { 0 } else { self.empty + 1 };
        if self.empty > EMPTY_PAGES {
            return Err("it goes on and on without a key");
        }
        if let Some((kept, kept_first)) = &self.kept {
            if kept == token {
                return Err("it goes on at a place where it was before");
            }
            if first.is_some() && kept_first.as_ref() == first {
                return Err("it begins two pages with the same key");
            }
        }
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.kept = Some((token.to_owned(), first.cloned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_ended_with_its_last_byte() {
        let page = b"<?xml version=\"1.0\"?>\n<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        assert!(is_ended(page) && is_ended(&[&page[..], b"\r\n"].concat()));
        assert!((0..page.len()).all(|length| !is_ended(&page[..length])));
        assert!(is_ended(b"<s3:ListBucketResult xmlns:s3='x'></s3:ListBucketResult>"));
        assert!(!is_ended(b"<ListBucketResult/>") && !is_ended(b"<html></html>"));
    }

    #[test]
    fn loops_of_any_length_are_found() {
        for (before, cycle) in [(0, 1), (1, 1), (5, 3), (100, 17), (0, 64)] {
            let mut detector = LoopDetector::default();
            let pages = (0..before).chain((before..before + cycle).cycle()).take(4 * (before + cycle) + 8);
            let found = pages.map(|page| detector.check(&page.to_string(), None)).any(|checked| checked.is_err());
            assert!(found, "{before} pages, then {cycle} again and again");
        }
    }

    #[test]
    fn the_same_keys_under_new_tokens_are_found() {
        let mut detector = LoopDetector::default();
        let first = Key::from("a");
        assert!((0..10).any(|page| detector.check(&page.to_string(), Some(&first)).is_err()));
    }

    #[test]
    fn a_long_listing_is_no_loop() {
        let mut detector = LoopDetector::default();
        for page in 0..5000 {
            let first = (page % 2 == 0).then(|| Key::new(page.to_string()));
            detector.check(&page.to_string(), first.as_ref()).unwrap();
        }
        let mut detector = LoopDetector::default();
        assert!((0..2000).any(|page| detector.check(&page.to_string(), None).is_err()));
    }
}
