//! Events that seldom come, in tasks that wake for every request: looked for only when there is news of one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Whom an event will wake. To poll one that waits takes a lock each time, to keep that in mind takes none.
#[derive(Debug, Default)]
pub(super) struct Seldom(Option<Waker>);

impl Seldom {
    /// Polls the event if there is `news` of it, or if another task asks than the last time. News must show before the event wakes
    /// anybody.
    pub(super) fn poll<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        event: Pin<&mut F>,
        news: bool,
    ) -> Poll<F::Output> {
        if !news && self.0.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.0 = Some(cx.waker().clone());
        event.poll(cx)
    }
}
