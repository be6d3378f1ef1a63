//! Listening sockets that a service manager holds and passes on (sd_listen_fds(3)): they stay open while one gateway ends and the
//! next begins, so that an upgrade refuses nobody. Owns the protocol; what is done with the sockets is `http`'s.

use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use socket2::{Socket, Type};

use crate::http::listeners::Given;

/// The first of them.
const FIRST: RawFd = 3;
/// More than anybody has listeners.
const MOST: RawFd = 4096;

/// Takes the sockets that were passed to this process. Called once, before it opens anything of its own.
pub fn take() -> Given {
    let number = |name: &str| -> Option<i64> { std::env::var(name).ok()?.parse().ok() };
    // Variables that were meant for a parent, as in a shell, mean nothing here.
    let count = match number("LISTEN_PID") {
        Some(pid) if pid == i64::from(std::process::id()) => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    let count = RawFd::try_from(count).unwrap_or(0).clamp(0, MOST);
    Given::new((FIRST..FIRST + count).filter_map(adopt).collect())
}

fn adopt(fd: RawFd) -> Option<TcpListener> {
    // SAFETY: `LISTEN_PID` says that the descriptors from `FIRST` on were opened for this process to own, and nothing here has
    // taken them yet. One that is no socket is handed back below, and nobody else knows it either.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let listens = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.is_listener().unwrap_or(false)
        && socket.local_addr().is_ok_and(|at| at.as_socket().is_some());
    if !listens {
        tracing::warn!(
            fd,
            "passed on by the service manager, and no TCP socket that listens; left alone"
        );
        let _ = socket.into_raw_fd();
        return None;
    }
    let fit = socket
        .set_cloexec(true)
        .and_then(|()| socket.set_nonblocking(true));
    if let Err(error) = fit {
        tracing::warn!(fd, %error, "passed on by the service manager, and can not be used");
        return None;
    }
    Some(socket.into())
}
