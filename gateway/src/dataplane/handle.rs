//! The way to the one writer from other threads: a bounded queue in front of the engine's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::engine::{BlockOrder, Engine};

/// Orders that may wait. Past it a block is dropped and counted: whoever misbehaves enough to fill the queue will
/// be struck again.
const QUEUE: usize = 1_024;

/// How often the tables are compared with the desired state.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

enum Order {
    Block(BlockOrder),
    Do(Job),
}

/// The engine's thread is gone: the gateway is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the dataplane has stopped")]
pub struct Stopped;

/// A way to give orders to the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

impl Handle {
    /// Starts the engine's thread. It ends when every handle is gone, and gives the engine back.
    pub fn start(engine: Engine) -> std::io::Result<(Self, JoinHandle<Engine>)> {
        let (orders, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("dataplane".to_owned()).spawn({
            let dropped = Arc::clone(&dropped);
            move || work(engine, &queue, &dropped)
        })?;
        Ok((Self { orders, dropped }, thread))
    }

    /// Orders a block and returns at once. `false` if the queue was full: the order is dropped, and counted.
    pub fn block(&self, order: BlockOrder) -> bool {
        match self.orders.try_send(Order::Block(order)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Runs `job` on the engine and hands back what it returns.
    pub async fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // A caller that no longer waits does not undo what was done.
            let _ = reply.send(job(engine));
        });
        let orders = self.orders.clone();
        // The queue can be full for as long as a large list takes; that wait must not hold up the caller's thread.
        tokio::task::spawn_blocking(move || orders.send(Order::Do(job)))
            .await
            .map_err(|_| Stopped)?
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

fn work(mut engine: Engine, queue: &Receiver<Order>, dropped: &AtomicU64) -> Engine {
    let mut reconcile_ns = engine.now().after(RECONCILE_EVERY);
    let mut watch_ns = engine.now().after(engine.watch());
    loop {
        let due_ns = reconcile_ns.min(watch_ns);
        match queue.recv_timeout(Duration::from_nanos(due_ns.saturating_sub(engine.now().boot_ns))) {
            Ok(Order::Block(order)) => {
                // Told to `Events` by the engine, refusals included.
                let _ = engine.block(order);
            }
            Ok(Order::Do(job)) => job(&mut engine),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return engine,
        }
        for _ in 0..dropped.swap(0, Ordering::Relaxed) {
            engine.count_dropped_order();
        }
        if engine.now().boot_ns >= watch_ns {
            watch_ns = engine.now().after(engine.watch());
        }
        if engine.now().boot_ns >= reconcile_ns {
            reconcile_ns = engine.now().after(RECONCILE_EVERY);
            engine.tend();
        }
    }
}
