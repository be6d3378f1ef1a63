//! How much of its answers one HTTP/2 connection may make the gateway hold, and for how long. Owns the count; knows no
//! protocol.
//!
//! A client chooses its windows and need not read, so neither may decide what is kept in memory. Each piece of an answer
//! carries a charge until it has been written to the socket. While a connection owes more than its budget, its bodies
//! are not asked for more: the upstream waits, in its own memory. A body that owes nothing may always have one piece, so
//! that no stream can be starved by others that the client does not read.
//!
//! Nor may it decide how long: an answer that waits for the client without a byte moving is given up. Time is counted in
//! looks, so that a piece that moves costs no reading of the clock.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use tokio::sync::oneshot;

/// Bytes that one connection may owe. Far above what a socket takes at once, so that a client that reads never waits.
const OF_CONNECTION: usize = 512 << 10;
/// Bytes that all connections of a worker may owe before each of them gets less.
const OF_WORKER: usize = 64 << 20;
/// What a connection may owe while its worker is over.
const IN_NEED: usize = 32 << 10;
/// Looks that an answer may wait for its client without a movement, beside the one under way.
pub(super) const LOOKS: u32 = 4;

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
    /// Every body that a task sends, or that owes something.
    shares: RefCell<Vec<Rc<Share>>>,
    /// Number of the look to come; never 0.
    look: Cell<u32>,
    /// Of the task that runs now, if its answer has begun.
    current: RefCell<Option<Rc<Share>>>,
    /// For the task that is spawned next.
    cut: RefCell<Option<oneshot::Receiver<()>>>,
}

/// Ends a task, and with it its stream. Without a word when it is dropped, the task goes on.
pub(super) type Cut = oneshot::Sender<()>;

/// What one body owes.
#[derive(Debug)]
pub(super) struct Share {
    budget: Rc<Budget>,
    owed: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// The look before which the client had its last turn to move; 0 while the gateway or the upstream has.
    since: Cell<u32>,
    /// Whether the task has asked for the next piece since it was woken. It does not while the client's window is shut.
    asked: Cell<bool>,
    /// Wakes the task that sends the body. Taken when it is given up.
    task: RefCell<Option<Waker>>,
    given_up: Cell<bool>,
    /// The task has ended.
    over: Cell<bool>,
    /// Place in [`Budget::shares`].
    at: Cell<usize>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that does not move.
    Fine,
    /// Bytes that do not move, of a body that is past giving up.
    Stuck,
}

impl Budget {
    pub(super) fn new(pool: &Rc<Pool>) -> Rc<Self> {
        Rc::new(Self {
            pool: Rc::clone(pool),
            owed: Cell::new(0),
            waiting: RefCell::default(),
            shares: RefCell::default(),
            look: Cell::new(1),
            current: RefCell::default(),
            cut: RefCell::default(),
        })
    }

    /// What ends the task that is spawned next for this connection.
    pub(super) fn cut(&self) -> Cut {
        let (cut, told) = oneshot::channel();
        self.cut.replace(Some(told));
        cut
    }

    /// A share for the answer that the task begins which runs now.
    pub(super) fn share(self: &Rc<Self>) -> Rc<Share> {
        let mut shares = self.shares.borrow_mut();
        let share = Rc::new(Share {
            budget: Rc::clone(self),
            owed: Cell::new(0),
            waker: RefCell::default(),
            // Its header may meet a closed window already.
            since: Cell::new(self.look.get()),
            asked: Cell::new(true),
            task: RefCell::default(),
            given_up: Cell::new(false),
            over: Cell::new(false),
            at: Cell::new(shares.len()),
        });
        shares.push(Rc::clone(&share));
        *self.current.borrow_mut() = Some(Rc::clone(&share));
        share
    }

    /// Looks for answers whose client takes nothing, gives them up, and says whether there is one where that does not help.
    pub(super) fn look(&self) -> Found {
        let look = self.look.get().wrapping_add(1).max(1);
        self.look.set(look);
        let (mut found, mut woken) = (Found::Fine, Vec::new());
        for share in &*self.shares.borrow() {
            let since = share.since.get();
            if since == 0 || look.wrapping_sub(since) <= LOOKS {
                continue;
            }
            share.given_up.set(true);
            match share.task.borrow_mut().take() {
                Some(task) => woken.push(task),
                None => found = Found::Stuck,
            }
        }
        woken.into_iter().for_each(Waker::wake);
        found
    }

    /// Nothing will be looked at any more.
    pub(super) fn close(&self) {
        let shares = std::mem::take(&mut *self.shares.borrow_mut());
        drop(shares);
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
        self.asked.set(true);
        if self.owed.get() == 0 || self.budget.owed.get() < self.budget.limit() {
            self.since.set(0);
            return Poll::Ready(());
        }
        if self.since.get() == 0 {
            self.since.set(self.budget.look.get());
        }
        let before = self.waker.borrow_mut().replace(cx.waker().clone());
        if before.is_none() {
            self.budget.waiting.borrow_mut().push(Rc::clone(self));
        }
        Poll::Pending
    }

    /// What the body had has been handed out; it is the client's turn.
    pub(super) fn handed_out(&self) {
        self.since.set(self.budget.look.get());
    }

    /// Takes it off the books if there is nothing more to look at.
    fn settle(&self) {
        if !self.over.get() || self.owed.get() > 0 {
            return;
        }
        let mut shares = self.budget.shares.borrow_mut();
        let at = self.at.get();
        if shares
            .get(at)
            .is_some_and(|known| std::ptr::eq(&raw const **known, self))
        {
            let gone = shares.swap_remove(at);
            if let Some(moved) = shares.get(at) {
                moved.at.set(at);
            }
            drop(shares);
            drop(gone);
        }
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
        if self.since.get() != 0 {
            self.since.set(budget.look.get());
        }
        self.settle();
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

/// Runs what hyper spawns for one connection: a task for each stream, which ends when its answer is given up. What is
/// left of the stream is reset then.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) Rc<Budget>);

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let budget = Rc::clone(&self.0);
        let cut = budget.cut.take();
        if let Some(cut) = cut {
            tokio::task::spawn_local(async move {
                tokio::select! {
                    biased;
                    Ok(()) = cut => {}
                    _ = future => {}
                }
            });
            return;
        }
        tokio::task::spawn_local(async move {
            let (mut task, mut future) = (Task { budget, share: None }, pin!(future));
            poll_fn(|cx| task.poll(future.as_mut(), cx)).await;
        });
    }
}

/// One stream's task, with the share of its answer once there is one.
struct Task {
    budget: Rc<Budget>,
    share: Option<Rc<Share>>,
}

impl Task {
    fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(share) = &self.share {
            if share.given_up.get() {
                return Poll::Ready(());
            }
            share.asked.set(false);
        }
        let before = self.budget.current.replace(self.share.take());
        let polled = future.poll(cx);
        self.share = self.budget.current.replace(before);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if let Some(share) = &self.share {
            if !share.asked.get() && share.since.get() == 0 {
                share.since.set(self.budget.look.get());
            }
            let mut task = share.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.over.set(true);
            share.task.take();
            share.settle();
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
