//! Descriptors that only probes, collectors and operators get, so that a gateway which has no other left still says how it
//! is. Knows nothing of what is asked.
//!
//! They lie between the soft limit, which holds for the whole process, and the hard one: the soft limit is raised for the
//! moment of an accept. A descriptor in store that is closed for it would be anybody's in that moment, and in the moment
//! when it is taken again.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// So many, if the system lets the process have many more.
const MOST: u64 = 16;

/// The soft limit under a hard one that leaves the reserve.
#[must_use]
pub fn under(most: u64) -> u64 {
    most - MOST.min(most / 8)
}

/// Accepts, from the reserve if there is no other descriptor.
pub(super) async fn accept<T>(
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(Err(error)) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            let limit = getrlimit(Resource::Nofile);
            let wide = Rlimit {
                current: limit.maximum,
                ..limit
            };
            if setrlimit(Resource::Nofile, wide).is_err() {
                return Poll::Ready(Err(error));
            }
            let polled = poll(cx);
            let _ = setrlimit(Resource::Nofile, limit);
            polled
        }
        polled => polled,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_leaves_a_small_reserve() {
        assert_eq!(
            [1 << 20, 1024, 64, 7, 0].map(|most| most - under(most)),
            [16, 16, 8, 0, 0]
        );
    }
}
