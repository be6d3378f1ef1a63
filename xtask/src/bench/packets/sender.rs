//! The sender: one thread on one core, frames without end into a veth pair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};

use super::sys::Program;

/// Frames of one system call: some tens of milliseconds, so that its set-up costs nothing and stopping is prompt.
const AT_ONCE: u32 = 1 << 18;

/// The nicest share of a core that an ordinary thread can have.
const HIGHEST: i32 = -20;

/// Sends until stopped or dropped.
#[derive(Debug)]
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sender {
    /// Starts sending copies of `frame`, made over by `program`, out of a device of this network namespace.
    pub fn start(program: Arc<Program>, frame: Vec<u8>, ifindex: u32, core: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("sender".to_owned())
            .spawn(move || {
                pin(core)?;
                // Of this thread only. Whoever else wants this core has the other one.
                rustix::process::setpriority_process(None, HIGHEST)
                    .context("raising the sender's priority")?;
                while !stopped.load(Ordering::Relaxed) {
                    program.run_live(&frame, ifindex, AT_ONCE)?;
                }
                Ok(())
            });
        Ok(Self {
            stop,
            thread: Some(thread.context("starting the sender's thread")?),
        })
    }

    /// Stops; returns when the last frame is out. Fails if sending did.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the sender panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // On the way out of another error; a second one says nothing new.
        let _ = self.end();
    }
}

/// Keeps the calling thread, and what it starts, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).with_context(|| format!("moving to core {core}"))
}
