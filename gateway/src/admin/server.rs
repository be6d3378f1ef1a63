//! The daemon's end of the admin socket. Owns the socket file and its permissions; answers come from a function.
//!
//! Only root and the socket's group reach it: the file is made with mode 0660.

use std::future::Future;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};

use super::api::{Failure, FailureKind, LONGEST, Outcome, Request};
use super::reserve;

const SIGN_EVERY: Duration = Duration::from_secs(2);
/// Ten minutes of them.
const MOST_SIGNS: usize = 300;

/// What comes of a request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for a request, and taken apart at once"
)]
pub enum Reply<F> {
    One(Outcome),
    /// Answers until there are no more, or the client goes away. Nothing more is read from it.
    Many(F),
}

/// A source of answers, dropped when the client has gone.
pub trait Feed: 'static {
    /// What is to be told next, waiting for it; `None` at the end. Nothing is lost if it is dropped.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Outcome>>>;
}

/// The bound socket. The file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AdminSocket {
    /// Binds the socket, replacing the file of a gateway that is gone. Needs a tokio runtime.
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                "another gateway answers on this socket",
            ));
        }
        // Only what can be the rest of a gateway: a file that someone keeps under this name is theirs.
        if let Ok(there) = std::fs::symlink_metadata(path)
            && !there.file_type().is_socket()
        {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "something that is not a socket has this name; move it away, or set admin.socket",
            ));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until the future is dropped. Each connection is a task on the local set.
    pub async fn serve<F, A, M>(&self, answer: F)
    where
        F: Fn(Request) -> A + 'static,
        A: Future<Output = Reply<M>> + 'static,
        M: Feed,
    {
        let answer = Rc::new(answer);
        loop {
            match reserve::accept(|cx| self.listener.poll_accept(cx)).await {
                Ok((stream, _)) => {
                    let answer = Rc::clone(&answer);
                    tokio::task::spawn_local(async move {
                        if let Err(error) = converse(stream, &*answer).await {
                            tracing::debug!(target: "gateway::admin", %error, "a connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(target: "gateway::admin", %error, "the admin socket can not accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

async fn converse<A: Future<Output = Reply<M>>, M: Feed>(
    stream: UnixStream,
    answer: &impl Fn(Request) -> A,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        if (&mut read)
            .take(LONGEST as u64)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(mut request) => {
                drop(line);
                if let Some((text, bytes)) = request.text() {
                    if bytes > LONGEST as u64 {
                        return Err(std::io::Error::other("too long a list"));
                    }
                    // At once, not by doubling; whoever may connect may deny the whole world anyway.
                    text.reserve_exact(usize::try_from(bytes).unwrap_or(LONGEST));
                    (&mut read).take(bytes).read_to_end(text).await?;
                    if text.len() as u64 != bytes {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
                // A first sign of life, which can not be given to one who has gone: what the asker gave up should not
                // be done behind his back. One that has only ended his own half still reads.
                if let Err(error) = write.write_all(b" ").await {
                    tracing::info!(target: "gateway::admin", %error, "an order was not begun, as who gave it has gone");
                    return Ok(());
                }
                with_signs_of_life(answer(request), &mut write).await?
            }
            Err(error) => Reply::One(Err(Failure::new(
                FailureKind::BadInput,
                format!("the request can not be read: {error}"),
            ))),
        };
        match reply {
            Reply::One(mut outcome) => {
                write.write_all(&lines(std::slice::from_ref(&outcome))?).await?;
                if let Ok(answer) = &mut outcome
                    && let Some((text, _)) = answer.text()
                {
                    write.write_all(text).await?;
                }
            }
            Reply::Many(feed) => return stream_out(feed, read, write).await,
        }
    }
}

/// A blank in front of the answer's document each two seconds until it is there, so that who waits for a long job can
/// tell it from a gateway that hangs; not for longer than any job takes.
async fn with_signs_of_life<R>(
    answer: impl Future<Output = R>,
    write: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<R> {
    tokio::pin!(answer);
    for _ in 0..MOST_SIGNS {
        match tokio::time::timeout(SIGN_EVERY, &mut answer).await {
            Ok(reply) => return Ok(reply),
            Err(_) => write.write_all(b" ").await?,
        }
    }
    Ok(answer.await)
}

/// Writes what the feed has until it ends or the client goes away.
async fn stream_out(
    mut feed: impl Feed,
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let gone = async {
        let mut ignored = [0; 512];
        while !matches!(read.read(&mut ignored).await, Ok(0) | Err(_)) {}
    };
    let tell = async {
        while let Some(outcomes) = feed.next().await {
            write.write_all(&lines(&outcomes)?).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = gone => Ok(()),
        told = tell => told,
    }
}

/// One JSON document a line.
fn lines(outcomes: &[Outcome]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for outcome in outcomes {
        serde_json::to_writer(&mut text, outcome)?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Feed for Nothing {
        async fn next(&mut self) -> Option<Vec<Outcome>> {
            None
        }
    }

    #[tokio::test]
    async fn what_its_asker_has_given_up_is_not_begun() {
        use std::io::{Read as _, Write as _};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        let ask = |request: &Request| {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            serde_json::to_writer(&mut stream, request).unwrap();
            stream.write_all(b"\n").unwrap();
            stream
        };
        // Nobody accepts yet, as when the process is stopped.
        drop(ask(&Request::BypassOff));
        let mut waits = ask(&Request::BypassStatus);
        // Its own half only.
        waits.shutdown(std::net::Shutdown::Write).unwrap();
        let begun = Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = Rc::clone(&begun);
        let local = tokio::task::LocalSet::new();
        let served = local.run_until(async move {
            let answer = move |request| {
                seen.borrow_mut().push(format!("{request:?}"));
                async { Reply::<Nothing>::One(Err(Failure::new(FailureKind::Failed, "done".to_owned()))) }
            };
            let served = socket.serve(answer);
            let _ = tokio::time::timeout(Duration::from_millis(500), served).await;
        });
        served.await;
        assert_eq!(*begun.borrow(), ["BypassStatus"]);
        let mut answer = String::new();
        waits.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        waits.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("done"), "{answer}");
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_file_that_is_none_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(AdminSocket::bind(&path).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        let error = AdminSocket::bind(&path).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
