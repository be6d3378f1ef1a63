//! What the outside tells a running gateway by signals.

use tokio::signal::unix::{SignalKind, signal};

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Calls `act` for each event until it returns `true`.
pub async fn each(mut act: impl AsyncFnMut(Event) -> bool) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let event = tokio::select! {
            _ = hangup.recv() => Event::Reload,
            _ = terminate.recv() => Event::Stop,
            _ = interrupt.recv() => Event::Stop,
        };
        if act(event).await {
            return Ok(());
        }
    }
}
