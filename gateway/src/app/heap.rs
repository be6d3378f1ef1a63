//! The process's heap: small pages, and what a start or a reload needed for a while given back. Knows nothing of who uses it.

use std::time::Duration;

use tokio::sync::Notify;

/// How long to wait for more of the same: reloads may come in a row, and the next one can use what the last one freed.
const QUIET: Duration = Duration::from_secs(1);

/// Has the kernel back the heap with small pages, whatever it does for others: a process of a few MiB that is spread over
/// pages of 2 MiB is resident with all of them. A kernel that can not is no reason not to run.
pub fn prefer_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Returns to the system what this thread has freed, and what the allocator keeps for all threads.
pub(super) fn give_back() {
    // SAFETY: the function takes no pointer, may be called at any time on any thread, and frees nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Gives memory back some time after each `freed`, on the thread that it runs on.
pub(super) async fn tidy(freed: &Notify) {
    loop {
        freed.notified().await;
        tokio::time::sleep(QUIET).await;
        give_back();
    }
}
