//! The S3 server: one bucket that has all invented objects, and one that gets them.

use super::Objects;
use super::http::{Answer, Connection, Request};
use crate::chunk;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};

/// The bucket with all objects.
pub const BUCKET: &str = "source";
/// The bucket that is empty at first.
pub const TARGET_BUCKET: &str = "restored";

/// Serves on a port of the loopback interface for as long as it is polled.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

struct State {
    objects: Objects,
    /// A bit for each object that the target has.
    present: Vec<AtomicU64>,
    /// What else was put into the target.
    others: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Server {
    /// Begins to listen on a free port.
    ///
    /// # Errors
    /// If there is none.
    pub async fn bind(objects: Objects) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let present = (0..objects.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { listener, state: Arc::new(State { objects, present, others: Mutex::default() }) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// If no more connections can be taken.
    pub async fn run(self) -> Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let state = Arc::clone(&self.state);
            tokio::spawn(async move {
                if let Err(error) = serve(stream, &state).await {
                    eprintln!("invented objects: {error:#}");
                }
            });
        }
    }
}

async fn serve(stream: TcpStream, state: &State) -> Result<()> {
    let mut connection = Connection::new(stream);
    while let Some(request) = connection.read().await? {
        let answer = state.answer(&request);
        connection.write(request.method == "HEAD", &answer).await?;
    }
    Ok(())
}

impl State {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let is_target = match bucket {
            BUCKET => false,
            TARGET_BUCKET => true,
            _ => return refuse(404, "NoSuchBucket"),
        };
        match (request.method.as_str(), key) {
            ("HEAD", "") => Answer::empty(200),
            ("GET", "") => self.list(is_target, request),
            ("GET" | "HEAD", key) => self.get(is_target, key),
            ("PUT", key) if is_target => self.put(key, request),
            ("DELETE", key) if is_target => self.delete(key),
            _ => refuse(405, "MethodNotAllowed"),
        }
    }

    fn get(&self, is_target: bool, key: &str) -> Answer {
        if let Ok(place) = self.objects.find(key)
            && (!is_target || self.has(place))
        {
            return Answer { status: 200, etag: Some(self.objects.etag(place)), body: self.objects.body(place) };
        }
        match self.others().get(key) {
            Some(body) if is_target => Answer { status: 200, etag: Some(etag(body)), body: body.clone() },
            _ => refuse(404, "NoSuchKey"),
        }
    }

    /// What is named by a hash must have it: nothing else is kept of it.
    fn put(&self, key: &str, request: &Request) -> Answer {
        let found = self.objects.find(key).ok();
        let exists = found.map_or_else(|| self.others().contains_key(key), |place| self.has(place));
        if request.if_absent && exists {
            return refuse(412, "PreconditionFailed");
        }
        match found {
            Some(place) if self.objects.body(place) == request.body => {
                self.present[place / 64].fetch_or(1 << (place % 64), Ordering::Relaxed);
            }
            Some(_) => return refuse(400, "BadDigest"),
            None => drop(self.others().insert(key.to_owned(), request.body.clone())),
        }
        Answer { status: 200, etag: Some(etag(&request.body)), body: Vec::new() }
    }

    fn delete(&self, key: &str) -> Answer {
        match self.objects.find(key) {
            Ok(place) => drop(self.present[place / 64].fetch_and(!(1 << (place % 64)), Ordering::Relaxed)),
            Err(_) => drop(self.others().remove(key)),
        }
        Answer::empty(204)
    }

    /// `ListObjectsV2`; the token is the last key of the page before.
    fn list(&self, is_target: bool, request: &Request) -> Answer {
        let parameter = |name: &str| request.query.get(name).map(String::as_str);
        let prefix = parameter("prefix").unwrap_or_default();
        let after = parameter("continuation-token").or_else(|| parameter("start-after")).unwrap_or_default();
        let most: usize = parameter("max-keys").and_then(|text| text.parse().ok()).unwrap_or(1000).min(1000);

        let mut place = match self.objects.find(after.max(prefix)) {
            Ok(found) if !after.is_empty() && after >= prefix => found + 1,
            Ok(place) | Err(place) => place,
        };
        let others = self.others();
        let mut others =
            others.iter().filter(|(key, _)| is_target && key.as_str() > after && key.starts_with(prefix)).peekable();
        let mut page = String::new();
        let (mut count, mut last, mut truncated) = (0, String::new(), false);
        loop {
            while is_target && place < self.objects.len() && !self.has(place) {
                place += 1;
            }
            let invented = self.objects.key(place).filter(|key| key.starts_with(prefix));
            let next = match (invented, others.peek()) {
                (Some(key), Some((other, _))) if key < **other => Some((key, None)),
                (_, Some(_)) => others.next().map(|(key, body)| (key.clone(), Some(body))),
                (Some(key), None) => Some((key, None)),
                (None, None) => None,
            };
            let Some((key, other)) = next else { break };
            if count == most {
                truncated = true;
                break;
            }
            let (etag, size) = match other {
                Some(body) => (etag(body), body.len()),
                None => (self.objects.etag(place), self.objects.bytes),
            };
            let _ = write!(
                page,
                "<Contents><Key>{key}</Key><LastModified>2025-03-01T08:00:00.000Z</LastModified><ETag>&quot;{etag}&quot;</ETag>\
                 <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            );
            place += usize::from(other.is_none());
            count += 1;
            last = key;
        }
        let token =
            if truncated { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
        Answer::xml(
            200,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys><IsTruncated>{truncated}</IsTruncated>{token}{page}\
                 </ListBucketResult>"
            ),
        )
    }

    fn has(&self, place: usize) -> bool {
        self.present.get(place / 64).is_some_and(|bits| bits.load(Ordering::Relaxed) >> (place % 64) & 1 == 1)
    }

    fn others(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn etag(body: &[u8]) -> String {
    hex::encode(&chunk::hash(body)[..16])
}

fn refuse(status: u16, code: &str) -> Answer {
    Answer::xml(status, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>"))
}
