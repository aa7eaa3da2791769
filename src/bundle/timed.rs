//! How long a bundle is waited for while it is read or written, told to the monitor.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use pacharc_format::{RangeReader, Source};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::monitor::{Monitor, Wait, timed};

/// Passes everything on to what it wraps.
pub struct Timed<T> {
    inner: T,
    detach: Detach<T>,
    monitor: Arc<dyn Monitor>,
    /// When what is waited for was first asked for.
    asked: Option<Instant>,
}

/// How a part of what is read is given to somebody else ([`Source::detach`]).
type Detach<T> = fn(&mut T, u64) -> Option<Box<dyn Read + Send>>;

impl<T> Timed<T> {
    /// Tells `monitor` how long `inner` is waited for.
    pub fn new(inner: T, monitor: Arc<dyn Monitor>) -> Self {
        Self { inner, detach: |_, _| None, monitor, asked: None }
    }

    /// Lets parts be detached, and whoever reads those is not waited for here.
    pub fn with_detach(self, detach: Detach<T>) -> Self {
        Self { detach, ..self }
    }

    fn watch<R>(&mut self, wait: Wait, poll: impl FnOnce(&mut T) -> Poll<R>) -> Poll<R> {
        let asked = *self.asked.get_or_insert_with(Instant::now);
        let polled = poll(&mut self.inner);
        if polled.is_ready() {
            self.asked = None;
            self.monitor.waited(wait, asked.elapsed());
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.watch(Wait::Input, |inner| Pin::new(inner).poll_read(cx, into))
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for Timed<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let asked = *this.asked.get_or_insert_with(Instant::now);
        let polled = Pin::new(&mut this.inner).poll_fill_buf(cx);
        if polled.is_ready() {
            this.asked = None;
            this.monitor.waited(Wait::Input, asked.elapsed());
        }
        polled
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl<T: AsyncBufRead + Unpin> Source for Timed<T> {
    fn detach(&mut self, length: u64) -> Option<Box<dyn Read + Send>> {
        (self.detach)(&mut self.inner, length)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watch(Wait::Output, |inner| Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(Wait::Output, |inner| Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(Wait::Output, |inner| Pin::new(inner).poll_shutdown(cx))
    }
}

impl<T: RangeReader> RangeReader for Timed<T> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(timed(self.monitor.as_ref(), Wait::Input, self.inner.read(offset, length)))
    }
}
