//! Who watches drops: one reader of the ring of events, and a bounded queue for each watcher.
//!
//! Owns when the program writes events at all: from the first watcher to the last. Lives on the main thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use gateway_common::tables::Event;
use tokio::sync::Notify;

use crate::admin::api::{Answer, Failure, FailureKind, Outcome, WatchOrder, Watching};
use crate::admin::server::Feed;
use crate::dataplane::clock::Now;
use crate::dataplane::events::{Interfaces, Sighting};
use crate::dataplane::kernel::EventRing;
use crate::dataplane::{Error, Handle};

/// Sightings that wait for one watcher; past it the newest are lost, and counted.
const QUEUE: usize = 4_096;
/// Watchers at one time.
const WATCHERS: usize = 64;
/// A command that read the ring when the gateway started lets go of it within a second.
const TRIES: u32 = 30;
const TRY_EVERY: Duration = Duration::from_millis(100);

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, message.into())
}

/// What one watcher has not been told yet.
#[derive(Debug, Default)]
struct Queue {
    order: WatchOrder,
    /// What comes first of all: that events are on.
    started: Cell<bool>,
    answers: RefCell<VecDeque<Outcome>>,
    lost: Cell<u64>,
    ended: Cell<bool>,
    wake: Notify,
}

impl Queue {
    fn push(&self, outcome: Outcome) {
        let mut answers = self.answers.borrow_mut();
        if answers.len() < QUEUE {
            answers.push_back(outcome);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
        self.wake.notify_one();
    }

    fn start(&self, every_ns: u64) {
        if !self.started.replace(true) {
            self.push(Ok(Answer::Watching(Watching { every_ns })));
        }
    }

    fn end(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            // There is always room for why it ends.
            self.answers.borrow_mut().push_back(Err(failure.clone()));
        }
        self.ended.set(true);
        self.wake.notify_one();
    }

    /// What is to be told now; `None` if nothing is.
    fn take(&self) -> Option<Vec<Outcome>> {
        let mut answers: Vec<Outcome> = self.answers.borrow_mut().drain(..).collect();
        let lost = self.lost.replace(0);
        if lost > 0 {
            answers.push(Ok(Answer::Lost { events: lost }));
        }
        (!answers.is_empty()).then_some(answers)
    }
}

/// Everyone who watches now.
#[derive(Debug, Default)]
pub struct Watchers {
    queues: RefCell<Vec<Rc<Queue>>>,
    changed: Notify,
    closed: Cell<bool>,
}

/// One watcher's place. Given up when dropped.
#[derive(Debug)]
pub struct Place {
    watchers: Rc<Watchers>,
    queue: Rc<Queue>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = |queue: &Rc<Queue>| Rc::ptr_eq(queue, &self.queue);
        self.watchers.queues.borrow_mut().retain(|queue| !gone(queue));
        self.watchers.changed.notify_one();
    }
}

impl Feed for Place {
    async fn next(&mut self) -> Option<Vec<Outcome>> {
        loop {
            if let Some(answers) = self.queue.take() {
                return Some(answers);
            }
            if self.queue.ended.get() {
                return None;
            }
            self.queue.wake.notified().await;
        }
    }
}

impl Watchers {
    /// A place for one more.
    pub fn join(self: &Rc<Self>, order: WatchOrder) -> Result<Place, Failure> {
        if self.closed.get() {
            return Err(failed("the gateway is stopping"));
        }
        let mut queues = self.queues.borrow_mut();
        if queues.len() >= WATCHERS {
            return Err(failed(format!("{WATCHERS} others watch already")));
        }
        let queue = Rc::new(Queue {
            order,
            ..Queue::default()
        });
        queues.push(Rc::clone(&queue));
        self.changed.notify_one();
        let watchers = Rc::clone(self);
        Ok(Place { watchers, queue })
    }

    /// Reads the ring whenever somebody watches, until [`Watchers::close`]. `pin_dir` is where it is pinned; `None` if there is no kernel program.
    pub async fn serve(&self, dataplane: Handle, pin_dir: Option<PathBuf>) {
        loop {
            while self.nobody() {
                if self.closed.get() {
                    return;
                }
                self.changed.notified().await;
            }
            let outcome = match &pin_dir {
                Some(pin_dir) => self.session(&dataplane, pin_dir).await,
                None => Err(failed(
                    "with `xdp.mode: none` no kernel program drops packets: there is nothing to watch",
                )),
            };
            if let Err(failure) = outcome {
                tracing::warn!(%failure, "watching ended");
                self.end_all(Some(&failure));
            }
        }
    }

    /// Ends every watch, for the end of the gateway. [`Watchers::serve`] ends when the program writes no more events.
    pub fn close(&self) {
        self.closed.set(true);
        self.end_all(None);
        self.changed.notify_one();
    }

    fn nobody(&self) -> bool {
        self.queues.borrow().is_empty()
    }

    fn end_all(&self, failure: Option<&Failure>) {
        for queue in self.queues.borrow_mut().drain(..) {
            queue.end(failure);
        }
    }

    /// From the first watcher to the last.
    async fn session(&self, dataplane: &Handle, pin_dir: &std::path::Path) -> Result<(), Failure> {
        let Some(mut ring) = self.open(pin_dir).await? else {
            return Ok(());
        };
        let every_ns = dataplane.with(|engine| engine.listen(true)).await??;
        let read = self.hand_out(&mut ring, every_ns).await;
        // Whatever came of it. A watcher that came meanwhile begins a session of its own.
        dataplane.with(|engine| engine.listen(false)).await??;
        read.map_err(|error| failed(format!("the ring of events can not be read: {error}")))
    }

    /// The ring; `None` if everyone has left before it was to be had.
    async fn open(&self, pin_dir: &std::path::Path) -> Result<Option<EventRing>, Failure> {
        let mut tries = 0;
        while !self.nobody() {
            match EventRing::open(pin_dir) {
                Err(Error::Watched { .. }) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_EVERY).await;
                }
                outcome => return Ok(Some(outcome?)),
            }
        }
        Ok(None)
    }

    async fn hand_out(&self, ring: &mut EventRing, every_ns: u64) -> std::io::Result<()> {
        let mut batch: Vec<Event> = Vec::new();
        let mut names = Interfaces::default();
        while !self.nobody() {
            for queue in &*self.queues.borrow() {
                queue.start(every_ns);
            }
            tokio::select! {
                read = ring.read(&mut batch) => read?,
                () = self.changed.notified() => continue,
            }
            self.tell(&batch, &mut names);
            batch.clear();
            // A flood of events must not keep everyone else on this thread waiting.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn tell(&self, events: &[Event], names: &mut Interfaces) {
        let now = Now::read();
        for event in events {
            let sighting = Sighting::new(event, names.name(event.ifindex), now);
            for queue in &*self.queues.borrow() {
                if queue.order.wants(&sighting) {
                    queue.push(Ok(Answer::Seen(sighting.clone())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::outcome::DropReason;

    use super::*;

    fn seen(place: &Place) -> Vec<Outcome> {
        place.queue.take().unwrap_or_default()
    }

    fn event(reason: DropReason, last: u8) -> Event {
        Event {
            source: gateway_common::addr::Addr::v4([192, 0, 2, last]).0,
            slot: reason.slot(),
            ifindex: 1,
            ..Event::default()
        }
    }

    #[test]
    fn each_watcher_gets_what_it_asked_for() {
        let watchers = Rc::new(Watchers::default());
        let join = |reason: Option<&str>, source: Option<&str>| {
            let order = WatchOrder {
                reason: reason.map(str::to_owned),
                source: source.map(|net| net.parse().expect("a network")),
            };
            watchers.join(order).expect("room")
        };
        let (all, denied, one) = (
            join(None, None),
            join(Some("denied"), None),
            join(None, Some("192.0.2.2/32")),
        );
        let events = [event(DropReason::Denied, 1), event(DropReason::SynLimit, 2)];
        watchers.tell(&events, &mut Interfaces::default());
        assert_eq!([&all, &denied, &one].map(|place| seen(place).len()), [2, 1, 1]);
        drop(denied);
        assert_eq!(watchers.queues.borrow().len(), 2);
        drop((all, one));
        assert!(watchers.nobody());
    }

    #[test]
    fn what_a_slow_watcher_lost_is_counted_and_told() {
        let watchers = Rc::new(Watchers::default());
        let place = watchers.join(WatchOrder::default()).expect("room");
        let events = vec![event(DropReason::Denied, 1); QUEUE + 7];
        watchers.tell(&events, &mut Interfaces::default());
        let told = seen(&place);
        assert_eq!(told.len(), QUEUE + 1);
        assert!(matches!(told.last(), Some(Ok(Answer::Lost { events: 7 }))));
        assert!(place.queue.take().is_none());
    }

    #[test]
    fn there_is_room_for_so_many_and_none_while_stopping() {
        let watchers = Rc::new(Watchers::default());
        let places: Vec<Place> = (0..WATCHERS)
            .map(|_| watchers.join(WatchOrder::default()).expect("room"))
            .collect();
        assert!(watchers.join(WatchOrder::default()).is_err());
        drop(places);
        assert!(watchers.join(WatchOrder::default()).is_ok());
        watchers.closed.set(true);
        assert!(watchers.join(WatchOrder::default()).is_err());
    }
}
