//! A stream on which no more is read than what was asked can be worth.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may be read ahead of what is written, at most. An answer has fewer bytes than its question, which gives its own
/// back; this is for what greets, and for the answers of some ten thousand questions that wait.
const MOST: usize = 1 << 20;

/// Reading more than that fails, and then for good.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    spare: usize,
    spent: Arc<AtomicBool>,
}

impl<S> Bounded<S> {
    /// Also what becomes true when too much has come.
    pub(super) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let spent = Arc::new(AtomicBool::new(false));
        let bounded = Self {
            stream,
            spare: MOST,
            spent: Arc::clone(&spent),
        };
        (bounded, spent)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let come = buffer.filled().len().saturating_sub(before);
        match self.spare.checked_sub(come) {
            Some(spare) => self.spare = spare,
            None => self.spent.store(true, Ordering::Relaxed),
        }
        if self.spent.load(Ordering::Relaxed) {
            buffer.set_filled(before);
            // A kind at which the redis crate lets go of the connection.
            let kind = io::ErrorKind::ConnectionAborted;
            return Poll::Ready(Err(io::Error::new(kind, "it answers without end")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.spare = self.spare.saturating_add(written).min(MOST);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn answers_of_any_number_pass_while_they_are_no_larger_than_the_questions() {
        let (near, mut far) = duplex(4096);
        let (mut near, spent) = Bounded::new(near);
        let mut piece = [7; 4096];
        for _ in 0..3 * MOST / 4096 {
            near.write_all(&piece).await.unwrap();
            far.read_exact(&mut piece).await.unwrap();
            far.write_all(&piece).await.unwrap();
            near.read_exact(&mut piece).await.unwrap();
        }
        assert!(!spent.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_nobody_asked_for_ends_at_the_bound() {
        let (near, mut far) = duplex(4096);
        let (mut near, spent) = Bounded::new(near);
        tokio::spawn(async move { while far.write_all(&[7; 4096]).await.is_ok() {} });
        let mut read = Vec::new();
        let error = near.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(read.len() <= MOST && spent.load(Ordering::Relaxed));
        near.write_all(&[7; 64]).await.unwrap();
        assert!(near.read_u8().await.is_err(), "for good");
    }
}
