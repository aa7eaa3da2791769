//! A small S3 server inside the test, with faults on demand: each request takes the next fault that is meant for its kind.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pacharc::bucket::{self, Bucket, Options, Policy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::s3_server;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status and code instead of an answer.
    Refuse(u16, &'static str),
    /// The request is carried out, and the connection closed without an answer.
    Lost,
    /// The request is carried out, and nothing comes.
    Silent,
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// As `Cut`, and the object is replaced by another one.
    CutAndChange(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// The whole object, although a range was asked for.
    IgnoreRange,
    /// The connection is closed after so many bytes of the body, and a `Content-Length` that fits them.
    Short(usize),
    /// One bit of the body is another, in its middle, and nothing tells so.
    Flip,
    /// The same, in this byte.
    FlipAt(usize),
    /// The answer comes so many milliseconds later.
    Late(u64),
    /// The request is carried out so many milliseconds later, whoever still waits for it; a part that comes behind the end of
    /// its upload opens that anew, as Versity's gateway does.
    Overdue(u64),
    /// The object is said to be written, and is not kept.
    Forget,
    /// The object is said to be written, and is kept without its last byte.
    Clip,
    /// A page of a proxy with this status instead of an answer.
    Page(u16),
    /// This status and nothing else.
    Bare(u16),
    /// Nothing goes wrong.
    Pass,
}

/// How listings are told.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    #[default]
    Honest,
    /// The same token for ever.
    SameToken,
    /// New tokens for ever, and always the same keys.
    SameKeys,
    /// Truncated, without a token.
    NoToken,
    /// Each page twice.
    Twice,
}

/// What the server makes of `If-None-Match` where something is written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// As S3: what lies there stays.
    #[default]
    Known,
    /// It says that it cannot.
    Refused,
    /// It overwrites without a word.
    Ignored,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Keys that listings do not show.
    unlisted: BTreeSet<String>,
    /// Uploads in parts that were begun, by key.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    /// By method and key; they come before the others.
    faults_of_keys: HashMap<(&'static str, String), VecDeque<Fault>>,
    gates: HashMap<(&'static str, String), Waiting>,
    listing: Listing,
    condition: Condition,
    /// No body without the right `Content-MD5`, as with Object Lock and a default retention.
    locked: bool,
    seen: Vec<Request>,
}

/// The server's side of a [`Gate`].
struct Waiting {
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

/// Where a request waits, before anything is looked up for it.
pub struct Gate {
    what: String,
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

impl Gate {
    /// Waits until the request stands before it.
    pub async fn reached(&mut self) {
        let reached = tokio::time::timeout(Duration::from_secs(300), &mut self.reached).await;
        reached.unwrap_or_else(|_| panic!("{}: nobody asked within five minutes", self.what)).unwrap();
    }

    /// Lets the request pass: it is answered from what the bucket holds now.
    pub fn open(self) {
        self.open.send(()).unwrap();
    }
}

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// A running server; ends when dropped.
pub struct FaultServer {
    state: Arc<Mutex<State>>,
    port: u16,
    task: JoinHandle<()>,
}

impl FaultServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { state, port, task }
    }

    /// The next requests of this method meet these faults.
    pub fn plan(&self, method: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.entry(method).or_default().extend(faults);
    }

    /// The next requests of this method for this key meet these faults.
    pub fn plan_for(&self, method: &'static str, key: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state.lock().unwrap();
        state.faults_of_keys.entry((method, key.to_owned())).or_default().extend(faults);
    }

    /// Listings do not show this key from now on, as if the object had come after each of them.
    pub fn unlist(&self, key: &str) {
        self.state.lock().unwrap().unlisted.insert(key.to_owned());
    }

    /// How many faults have met no request yet.
    pub fn planned(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.faults.values().chain(state.faults_of_keys.values()).map(VecDeque::len).sum()
    }

    /// Faults that nothing met are forgotten.
    pub fn calm(&self) {
        let mut state = self.state.lock().unwrap();
        state.faults.clear();
        state.faults_of_keys.clear();
    }

    /// The next request of this method for this key waits until the gate is opened.
    pub fn gate(&self, method: &'static str, key: &str) -> Gate {
        let ((reach, reached), (open, opened)) = (oneshot::channel(), oneshot::channel());
        self.state.lock().unwrap().gates.insert((method, key.to_owned()), Waiting { reached: reach, opened });
        Gate { what: format!("{method} {key}"), reached, open }
    }

    /// From now on no body is taken without its digest.
    pub fn lock(&self) {
        self.state.lock().unwrap().locked = true;
    }

    pub fn listing(&self, listing: Listing) {
        self.state.lock().unwrap().listing = listing;
    }

    pub fn condition(&self, condition: Condition) {
        self.state.lock().unwrap().condition = condition;
    }

    pub fn hold(&self, key: &str, body: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().objects.insert(key.to_owned(), body.into());
    }

    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn remove(&self, key: &str) {
        self.state.lock().unwrap().objects.remove(key);
    }

    /// The bucket's URL.
    pub fn url(&self) -> String {
        format!("s3://bucket?endpoint=http://127.0.0.1:{}&region=us-east-1&path_style=true", self.port)
    }

    /// Whether an upload in parts has begun and neither ended nor been taken back.
    pub fn uploading(&self) -> bool {
        !self.state.lock().unwrap().uploads.is_empty()
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bucket, with a policy that loses little time in pauses, and waits for answers as long as a busy machine takes.
    pub async fn open(&self) -> Arc<dyn Bucket> {
        self.open_with(Duration::from_secs(60)).await
    }

    /// The same for servers that fall silent. On a busy machine a sound answer may come too late for it, too: how often it
    /// asks says nothing.
    pub async fn open_impatient(&self) -> Arc<dyn Bucket> {
        self.open_with(Duration::from_secs(1)).await
    }

    async fn open_with(&self, patience: Duration) -> Arc<dyn Bucket> {
        let retry = Policy {
            first: Duration::from_millis(2),
            longest: Duration::from_millis(20),
            total: Duration::from_millis(500),
            patience,
        };
        bucket::open(&self.url().parse().unwrap(), &Options { retry, ..s3_server::options() }).await.unwrap()
    }
}

/// As the sample cluster sees it: no faults.
#[async_trait]
impl pacharc_sample::bucket::Bucket for FaultServer {
    async fn put(&self, key: &str, bytes: Bytes) -> anyhow::Result<()> {
        self.hold(key, bytes);
        Ok(())
    }

    async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        Ok(self.object(key).map(Bytes::from))
    }

    async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.remove(key);
        Ok(())
    }

    async fn keys(&self) -> anyhow::Result<Vec<String>> {
        Ok(Self::keys(self))
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>"))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_request(&mut stream).await?;
        let gate = state.lock().unwrap().gate(&request);
        if let Some(Waiting { reached, opened }) = gate {
            reached.send(()).ok();
            opened.await.ok();
        }
        let fault = {
            let mut state = state.lock().unwrap();
            let (method, path, query) = (request.method.clone(), request.path.clone(), request.query.clone());
            state.seen.push(Request { method, path, query, headers: request.headers.clone(), body: Vec::new() });
            let of_key = state.faults_of_keys.iter_mut();
            let mut of_key = of_key.filter(|((method, name), _)| *method == request.method && name == key(&request));
            let fault = of_key.find_map(|(_, faults)| faults.pop_front());
            let fault = fault.or_else(|| state.faults.get_mut(request.method.as_str()).and_then(VecDeque::pop_front));
            fault.unwrap_or(Fault::Pass)
        };
        if let Fault::Overdue(milliseconds) = fault {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let answer = {
            let mut state = state.lock().unwrap();
            let answer = match fault {
                Fault::Refuse(status, code) => Answer::error(status, code),
                Fault::Page(status) => Answer::new(status, "<html><body><p>no such page<br></body></html>"),
                Fault::Bare(status) => Answer::new(status, ""),
                Fault::IgnoreRange => {
                    let headers = request.headers.iter().filter(|(name, _)| *name != "range");
                    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
                    state.answer(&Request { headers, ..request.clone() })
                }
                Fault::Flip | Fault::FlipAt(_) => {
                    let mut answer = state.answer(&request);
                    let place = if let Fault::FlipAt(place) = fault { place } else { answer.body.len() / 2 };
                    if let Some(byte) = answer.body.get_mut(place) {
                        *byte ^= 1;
                    }
                    answer
                }
                Fault::Overdue(_) => {
                    state.uploads.entry(key(&request).to_owned()).or_default();
                    state.answer(&request)
                }
                _ => state.answer(&request),
            };
            match fault {
                Fault::CutAndChange(_) => drop(state.objects.insert(key(&request).to_owned(), b"another".to_vec())),
                Fault::Forget => drop(state.objects.remove(key(&request))),
                Fault::Clip => drop(state.objects.get_mut(key(&request)).and_then(Vec::pop)),
                _ => {}
            }
            answer
        };
        let head = request.method == "HEAD";
        let length = if let Fault::Short(length) = fault { length } else { answer.body.len() };
        let mut text = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\n", answer.status);
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let body = if head { &[][..] } else { &answer.body[..] };
        let whole = |n: usize| [text.as_bytes(), &body[..n.min(body.len())]].concat();
        match fault {
            Fault::Lost => return None,
            Fault::Late(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                stream.write_all(&whole(usize::MAX)).await.ok()?;
                stream.flush().await.ok()?;
            }
            Fault::Silent => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return None;
            }
            Fault::Cut(n) | Fault::CutAndChange(n) | Fault::Short(n) => {
                stream.write_all(&whole(n)).await.ok()?;
                stream.flush().await.ok()?;
                return None;
            }
            Fault::Stall(n) => {
                stream.write_all(&whole(n)).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(Duration::from_secs(60)).await;
                return None;
            }
            _ => {
                stream.write_all(&whole(usize::MAX)).await.ok()?;
                stream.flush().await.ok()?;
            }
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    // To a proxy the whole URL is sent.
    let target = target.strip_prefix("http://").map_or(target.as_str(), |url| &url[url.find('/').unwrap_or(0)..]);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn decode(value: &str) -> String {
    percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
}

fn key(request: &Request) -> &str {
    request.path.strip_prefix("/bucket/").unwrap_or_default()
}

fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:x}\"", hasher.finish())
}

impl State {
    fn gate(&mut self, request: &Request) -> Option<Waiting> {
        let of = |(method, name): &(&'static str, String)| *method == request.method && name == key(request);
        let gate = self.gates.keys().find(|gate| of(gate)).cloned()?;
        self.gates.remove(&gate)
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let parameter = |name: &str| {
            let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| decode(value))
        };
        let key = key(request).to_owned();
        match request.method.as_str() {
            "GET" if key.is_empty() => self.list(parameter("continuation-token"), parameter("prefix")),
            "GET" | "HEAD" => self.read(&key, request),
            "PUT" if self.locked && !has_digest(request) => Answer::new(
                400,
                "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put \
                 Object requests with Object Lock parameters</Message></Error>",
            ),
            "PUT" => match parameter("partNumber") {
                Some(number) => match self.uploads.get_mut(&key) {
                    Some(parts) => {
                        parts.insert(number.parse().unwrap(), request.body.clone());
                        Answer::new(200, "").with("etag", etag(&request.body))
                    }
                    None => Answer::error(404, "NoSuchUpload"),
                },
                None => self.unless_taken(&key, request).unwrap_or_else(|| {
                    self.objects.insert(key, request.body.clone());
                    Answer::new(200, "").with("etag", etag(&request.body))
                }),
            },
            "POST" if request.query.starts_with("uploads") => {
                self.uploads.insert(key, BTreeMap::new());
                let xml = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                Answer::new(200, xml)
            }
            "POST" => self.unless_taken(&key, request).unwrap_or_else(|| {
                let Some(parts) = self.uploads.remove(&key) else { return Answer::error(404, "NoSuchUpload") };
                self.objects.insert(key, parts.into_values().flatten().collect());
                Answer::new(200, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
            }),
            "DELETE" if request.query.contains("uploadId") => {
                self.uploads.remove(&key);
                Answer::new(204, "")
            }
            _ => {
                self.objects.remove(&key);
                Answer::new(204, "")
            }
        }
    }

    /// Why a condition of a request that writes `key` does not hold.
    fn unless_taken(&self, key: &str, request: &Request) -> Option<Answer> {
        request.headers.get("if-none-match").filter(|wanted| *wanted == "*")?;
        match self.condition {
            Condition::Known => self.objects.contains_key(key).then(|| Answer::error(412, "PreconditionFailed")),
            Condition::Refused => Some(Answer::error(501, "NotImplemented")),
            Condition::Ignored => None,
        }
    }

    fn read(&self, key: &str, request: &Request) -> Answer {
        let Some(body) = self.objects.get(key) else { return Answer::error(404, "NoSuchKey") };
        // Every object here looks as if it had been written in two parts.
        let etag = format!("{}-2\"", etag(body).trim_end_matches('"'));
        if request.headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
            return Answer::error(412, "PreconditionFailed");
        }
        let Some(range) = request.headers.get("range") else {
            return Answer::new(200, body.clone()).with("etag", etag);
        };
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse::<usize>().map_or(body.len(), |end| (end + 1).min(body.len()));
        if start >= body.len() {
            return Answer::error(416, "InvalidRange");
        }
        let range = format!("bytes {start}-{}/{}", end - 1, body.len());
        Answer::new(206, &body[start..end]).with("etag", etag).with("content-range", range)
    }

    /// Pages of two keys; the token is the last key.
    fn list(&self, token: Option<String>, prefix: Option<String>) -> Answer {
        let prefix = prefix.unwrap_or_default();
        let all: Vec<&String> = self.objects.keys().collect();
        let all: Vec<&String> =
            all.into_iter().filter(|key| key.starts_with(&prefix) && !self.unlisted.contains(*key)).collect();
        let honest = matches!(self.listing, Listing::Honest | Listing::Twice);
        let again = token.as_deref().and_then(|token| token.strip_prefix("again "));
        let from = again.or(token.as_deref()).filter(|_| honest).unwrap_or_default();
        let page: Vec<&&String> = all.iter().filter(|key| key.as_str() > from).take(2).collect();
        let twice = self.listing == Listing::Twice && again.is_none();
        let truncated = !honest || twice || page.last().is_some_and(|last| Some(**last) != all.last().copied());
        let next = match self.listing {
            Listing::Twice if twice => Some(format!("again {from}")),
            Listing::Honest | Listing::Twice => page.last().map(|key| key.to_string()).filter(|_| truncated),
            Listing::SameToken => Some("again".to_owned()),
            Listing::SameKeys => Some(format!("{}x", token.unwrap_or_default())),
            Listing::NoToken => None,
        };
        let mut xml = format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>");
        for key in page {
            xml.push_str(&format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", self.objects[*key].len()));
        }
        if let Some(next) = next {
            xml.push_str(&format!("<NextContinuationToken>{next}</NextContinuationToken>"));
        }
        Answer::new(200, xml + "</ListBucketResult>")
    }
}

/// Whether the body's digest stands in the headers, and is right.
fn has_digest(request: &Request) -> bool {
    use base64::Engine as _;
    use md5::Digest as _;
    let digest = base64::prelude::BASE64_STANDARD.encode(md5::Md5::digest(&request.body));
    request.headers.get("content-md5").is_some_and(|told| *told == digest)
}
