//! Has hyper run what it spawns on the thread that it was called on. Knows nothing of what that is.

use std::future::Future;

use hyper::rt::Executor;

/// Of a worker, whose connections hold what can not leave its thread.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
