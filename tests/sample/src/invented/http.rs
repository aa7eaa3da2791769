//! As much of HTTP/1.1 as the S3 clients here speak: requests with `Content-Length`, one after the other on a connection.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The longest header section, and the longest body.
const HEAD: usize = 64 << 10;
const BODY: usize = 64 << 20;

/// One request.
pub(super) struct Request {
    pub(super) method: String,
    /// Decoded.
    pub(super) path: String,
    /// Decoded.
    pub(super) query: HashMap<String, String>,
    /// `If-None-Match: *`.
    pub(super) if_absent: bool,
    pub(super) body: Vec<u8>,
}

/// The answer to it.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of an object.
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, etag: None, body: Vec::new() }
    }

    pub(super) fn xml(status: u16, body: String) -> Self {
        Self { status, etag: None, body: body.into_bytes() }
    }
}

/// A connection of one client.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    head: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Answers are written whole.
        stream.set_nodelay(true).ok();
        Self { stream: BufReader::with_capacity(16 << 10, stream), head: Vec::new() }
    }

    /// The next request; `None` where the client has closed.
    pub(super) async fn read(&mut self) -> Result<Option<Request>> {
        self.head.clear();
        while !self.head.ends_with(b"\r\n\r\n") {
            ensure!(self.head.len() < HEAD, "the head of a request is too long");
            if self.stream.read_until(b'\n', &mut self.head).await? == 0 {
                return Ok(None);
            }
        }
        let head = std::str::from_utf8(&self.head)?;
        let (first, headers) = head.split_once("\r\n").context("no request line")?;
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: decode(path)?,
            query: query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| Ok((decode(name)?, decode(value)?)))
                .collect::<Result<_>>()?,
            if_absent: false,
            body: Vec::new(),
        };
        let mut length = 0;
        for (name, value) in headers.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse()?,
                "transfer-encoding" => bail!("a body of unknown length"),
                "content-encoding" if value.contains("aws-chunked") => bail!("a body in signed chunks"),
                "if-none-match" => request.if_absent = value == "*",
                "expect" => self.stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?,
                _ => {}
            }
        }
        ensure!(length <= BODY, "a body of {length} bytes");
        request.body.resize(length, 0);
        self.stream.read_exact(&mut request.body).await?;
        Ok(Some(request))
    }

    /// Answers the last request.
    pub(super) async fn write(&mut self, head_only: bool, answer: &Answer) -> Result<()> {
        let mut whole = format!(
            "HTTP/1.1 {} -\r\nContent-Length: {}\r\nLast-Modified: Sat, 01 Mar 2025 08:00:00 GMT\r\n",
            answer.status,
            answer.body.len()
        );
        if let Some(etag) = &answer.etag {
            whole.push_str(&format!("ETag: \"{etag}\"\r\n"));
        }
        whole.push_str("\r\n");
        let mut whole = whole.into_bytes();
        if !head_only {
            whole.extend_from_slice(&answer.body);
        }
        Ok(self.stream.get_mut().write_all(&whole).await?)
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    Ok(String::from_utf8(bytes)?)
}
