//! A thread beside the workers, for what must be looked after from time to time. Owns its beginning and its end; knows
//! nothing of what is looked after, or how.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub struct Wards<T> {
    wards: Option<UnboundedSender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Wards<T> {
    /// Starts the thread under a name. `keep_all` is given what is to be looked after as it comes, and may spawn on the thread.
    ///
    /// # Errors
    /// What the system said.
    pub fn start<F: Future<Output = ()>>(
        name: &str,
        keep_all: impl FnOnce(UnboundedReceiver<T>) -> F + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (wards, taken) = unbounded_channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, keep_all(taken));
            // A look-up of a name by the system can not be broken off, and nobody waits for it any more.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            wards: Some(wards),
            thread: Some(thread),
        })
    }

    /// Has one more looked after.
    pub fn take(&self, ward: T) {
        if let Some(wards) = &self.wards {
            // Without a receiver the thread has ended, and the process is about to.
            let _ = wards.send(ward);
        }
    }
}

impl<T> Drop for Wards<T> {
    fn drop(&mut self) {
        self.wards = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
