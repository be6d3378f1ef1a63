//! How much of its answers one HTTP/2 connection may make the gateway hold. Owns the count; knows no protocol.
//!
//! A client chooses its windows and need not read, so neither may decide what is kept in memory. Each piece of an answer
//! carries a charge until it has been written to the socket. While a connection owes more than its budget, its bodies
//! are not asked for more: the upstream waits, in its own memory. A body that owes nothing may always have one piece, so
//! that no stream can be starved by others that the client does not read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

/// Bytes that one connection may owe. Far above what a socket takes at once, so that a client that reads never waits.
const OF_CONNECTION: usize = 512 << 10;
/// Bytes that all connections of a worker may owe before each of them gets less.
const OF_WORKER: usize = 64 << 20;
/// What a connection may owe while its worker is over.
const IN_NEED: usize = 32 << 10;

/// What a worker's connections owe together.
#[derive(Debug, Default)]
pub(super) struct Pool {
    owed: Cell<usize>,
}

/// What one connection owes.
#[derive(Debug)]
pub(super) struct Budget {
    pool: Rc<Pool>,
    owed: Cell<usize>,
    /// Bodies that wait for room. At most one entry for each.
    waiting: RefCell<Vec<Rc<Share>>>,
}

/// What one body owes.
#[derive(Debug)]
pub(super) struct Share {
    budget: Rc<Budget>,
    owed: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Budget {
    pub(super) fn new(pool: &Rc<Pool>) -> Rc<Self> {
        Rc::new(Self {
            pool: Rc::clone(pool),
            owed: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// A share for one more body.
    pub(super) fn share(self: &Rc<Self>) -> Rc<Share> {
        Rc::new(Share {
            budget: Rc::clone(self),
            owed: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    fn limit(&self) -> usize {
        if self.pool.owed.get() > OF_WORKER {
            IN_NEED
        } else {
            OF_CONNECTION
        }
    }
}

impl Share {
    /// Ready when the body may hand out its next piece.
    pub(super) fn poll_room(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.owed.get() == 0 || self.budget.owed.get() < self.budget.limit() {
            return Poll::Ready(());
        }
        let before = self.waker.borrow_mut().replace(cx.waker().clone());
        if before.is_none() {
            self.budget.waiting.borrow_mut().push(Rc::clone(self));
        }
        Poll::Pending
    }

    fn charge(&self, bytes: usize) {
        self.owed.set(self.owed.get() + bytes);
        self.budget.owed.set(self.budget.owed.get() + bytes);
        self.budget.pool.owed.set(self.budget.pool.owed.get() + bytes);
    }

    fn release(&self, bytes: usize) {
        let budget = &self.budget;
        self.owed.set(self.owed.get() - bytes);
        budget.owed.set(budget.owed.get() - bytes);
        budget.pool.owed.set(budget.pool.owed.get() - bytes);
        if budget.waiting.borrow().is_empty() {
            return;
        }
        // Half of it must be free, lest each packet wakes everyone.
        let all = budget.owed.get() <= budget.limit() / 2;
        budget.waiting.borrow_mut().retain(|share| {
            if !all && share.owed.get() > 0 {
                return true;
            }
            if let Some(waker) = share.waker.borrow_mut().take() {
                waker.wake();
            }
            false
        });
    }

    /// The body is gone and waits no more.
    pub(super) fn leave(self: &Rc<Self>) {
        if self.waker.borrow_mut().take().is_some() {
            let mut waiting = self.budget.waiting.borrow_mut();
            waiting.retain(|share| !Rc::ptr_eq(share, self));
        }
    }
}

/// A piece of an answer, charged until it is written or dropped; to nobody under HTTP/1, where a connection has one body.
#[derive(Debug)]
pub struct Charged {
    bytes: Bytes,
    share: Option<Rc<Share>>,
}

impl Charged {
    pub(super) fn new(bytes: Bytes, share: Option<Rc<Share>>) -> Self {
        if let Some(share) = &share {
            share.charge(bytes.len());
        }
        Self { bytes, share }
    }
}

impl Buf for Charged {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(share) = &self.share {
            share.release(count);
        }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.release(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn over_the_budget_a_body_waits_until_half_is_free_or_it_owes_nothing() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let pool = Rc::new(Pool::default());
        let budget = Budget::new(&pool);
        let (big, small, fresh) = (budget.share(), budget.share(), budget.share());
        let piece = |share: &Rc<Share>, length| Charged::new(vec![0; length].into(), Some(Rc::clone(share)));
        let mut much = piece(&big, OF_CONNECTION);
        let little = piece(&small, 10);
        assert!(big.poll_room(&mut cx).is_pending());
        assert!(
            big.poll_room(&mut cx).is_pending(),
            "once more is no second entry"
        );
        assert!(small.poll_room(&mut cx).is_pending());
        assert!(fresh.poll_room(&mut cx).is_ready(), "it owes nothing yet");
        assert_eq!(budget.waiting.borrow().len(), 2);
        drop(little);
        assert_eq!(
            woken.0.load(Ordering::Relaxed),
            1,
            "the small one owes nothing now"
        );
        much.advance(10);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        much.advance(OF_CONNECTION / 2);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(big.poll_room(&mut cx).is_ready());
        drop(much);
        assert_eq!((budget.owed.get(), pool.owed.get()), (0, 0), "all is paid back");
    }

    #[test]
    fn a_worker_over_its_pool_gives_each_connection_less_and_who_leaves_is_forgotten() {
        let waker = Waker::noop();
        let mut cx = Context::from_waker(waker);
        let pool = Rc::new(Pool::default());
        let (one, other) = (Budget::new(&pool), Budget::new(&pool));
        let _held = Charged::new(vec![0; IN_NEED].into(), Some(one.share()));
        let share = other.share();
        let _mine = Charged::new(vec![0; IN_NEED].into(), Some(Rc::clone(&share)));
        assert!(share.poll_room(&mut cx).is_ready());
        pool.owed.set(pool.owed.get() + OF_WORKER);
        assert!(share.poll_room(&mut cx).is_pending());
        share.leave();
        assert!(other.waiting.borrow().is_empty());
        pool.owed.set(pool.owed.get() - OF_WORKER);
    }
}
