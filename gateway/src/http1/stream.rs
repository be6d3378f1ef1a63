//! One connection's bytes: read ahead of what is understood, and gathered before they are written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::head::Framing;
use super::write;
use crate::net::Transport;

/// A piece up to this long is copied behind what is gathered already; a longer one is written from where it is.
const COPIED: usize = 4 << 10;
/// From so many gathered bytes on, nothing more is gathered before some of them are written.
const GATHERED: usize = 16 << 10;

/// A connection with its buffers. Neither exists while nothing is under way.
#[derive(Debug)]
pub struct Stream<D> {
    transport: Transport,
    /// Read and not understood yet.
    pub ahead: BytesMut,
    /// The other side has ended its direction.
    pub ended: bool,
    /// To be written, in this order: gathered bytes, a piece, the line end behind it.
    gathered: BytesMut,
    piece: Option<D>,
    behind: &'static [u8],
    /// TLS may hold what it has been given.
    unflushed: bool,
}

impl<D: Buf> Stream<D> {
    /// `ahead` has been read already.
    #[must_use]
    pub fn new(transport: Transport, ahead: BytesMut) -> Self {
        Self {
            transport,
            ahead,
            ended: false,
            gathered: BytesMut::new(),
            piece: None,
            behind: b"",
            unflushed: false,
        }
    }

    /// Has the connection end with a reset when it is dropped: a plain end would look like one that was meant.
    pub fn reset(&mut self) {
        // One that is gone needs none.
        let _ = self.transport.tcp().set_zero_linger();
    }

    /// The connection below, for looks at it that the buffers do not matter to.
    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Reads once, with room for `room` bytes. The number read is zero at the other side's end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        self.ahead.reserve(room);
        let read = ready!(poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.ahead))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// Takes what has come, whatever it is; `None` at the other side's end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<Option<Bytes>>> {
        if self.ahead.is_empty() {
            match self.poll_fill(cx, room) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    self.rest();
                    return Poll::Pending;
                }
            };
        }
        Poll::Ready(Ok(Some(self.ahead.split().freeze())))
    }

    /// Reads and throws away. The number is zero at the other side's end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [std::mem::MaybeUninit::uninit(); 8 << 10];
        let mut target = ReadBuf::uninit(&mut scratch);
        // Below TLS: nobody will look at it.
        ready!(Pin::new(self.transport.tcp()).poll_read(cx, &mut target))?;
        Poll::Ready(Ok(target.filled().len()))
    }

    /// Where headers and framing are written to. Only while [`Stream::has_room`].
    pub fn gather(&mut self) -> &mut BytesMut {
        &mut self.gathered
    }

    /// Whether more may be gathered before something is written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.piece.is_none() && self.gathered.len() < GATHERED
    }

    /// Whether everything has been written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.piece.is_none() && self.gathered.is_empty() && !self.unflushed
    }

    /// Gathers a piece of a body, with `behind` after it. Only while [`Stream::has_room`].
    pub fn push(&mut self, piece: D, behind: &'static [u8]) {
        if piece.remaining() <= COPIED {
            self.copy(piece, behind);
        } else {
            self.piece = Some(piece);
            self.behind = behind;
        }
    }

    fn copy(&mut self, mut piece: D, behind: &'static [u8]) {
        self.gathered.reserve(piece.remaining() + behind.len());
        while piece.has_remaining() {
            let chunk = piece.chunk();
            self.gathered.extend_from_slice(chunk);
            let length = chunk.len();
            piece.advance(length);
        }
        self.gathered.extend_from_slice(behind);
    }

    /// Gathers a piece of a body as its framing has it. Only while [`Stream::has_room`].
    pub fn push_framed(&mut self, framing: Framing, piece: D) {
        // An empty chunk would be the last one.
        if !piece.has_remaining() {
            return;
        }
        if framing == Framing::Chunked {
            write::chunk_size(&mut self.gathered, piece.remaining());
            self.push(piece, b"\r\n");
        } else {
            self.push(piece, b"");
        }
    }

    /// Gathers what ends a body.
    pub fn finish(&mut self, framing: Framing, trailer: Option<&HeaderMap>) {
        if framing == Framing::Chunked {
            // What is gathered is written before a piece, and the end comes behind the last one.
            if let Some(piece) = self.piece.take() {
                self.copy(piece, self.behind);
            }
            write::trailer(&mut self.gathered, trailer);
        }
    }

    /// Ready when everything has been written.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_some() || !self.gathered.is_empty() {
            let written = match &self.piece {
                None => ready!(Pin::new(&mut self.transport).poll_write(cx, &self.gathered))?,
                Some(piece) => {
                    let slices = [
                        io::IoSlice::new(&self.gathered),
                        io::IoSlice::new(piece.chunk()),
                        io::IoSlice::new(if piece.remaining() == piece.chunk().len() {
                            self.behind
                        } else {
                            b""
                        }),
                    ];
                    let slices = if self.gathered.is_empty() {
                        &slices[1..]
                    } else {
                        &slices[..]
                    };
                    ready!(Pin::new(&mut self.transport).poll_write_vectored(cx, slices))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = matches!(self.transport, Transport::Tls(_));
            self.wrote(written);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) {
        let gathered = written.min(self.gathered.len());
        self.gathered.advance(gathered);
        let mut left = written - gathered;
        if let Some(piece) = &mut self.piece {
            let of_piece = left.min(piece.remaining());
            piece.advance(of_piece);
            left -= of_piece;
            if !piece.has_remaining() {
                self.piece = None;
                self.gathered
                    .extend_from_slice(self.behind.get(left..).unwrap_or_default());
            }
        }
    }

    /// Ends our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    /// Gives back the memory of buffers that hold nothing.
    pub fn rest(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        if self.gathered.is_empty() {
            self.gathered = BytesMut::new();
        }
    }
}
