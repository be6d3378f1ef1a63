//! New access tokens for sessions whose last one has ended: one exchange for each, whoever asks for it and how often.
//!
//! Providers give a refresh token once and take a second use of it for theft, which ends the whole session (RFC 9700, 4.14.2). A
//! page sends many requests at once, and some are on their way with the old cookie when the new one is there. So all of them
//! wait for one exchange, and its outcome answers for those that come late. It is of the process, not of a configuration:
//! what two of them hold during a reload are the same tokens. Knows nothing of what an exchange is.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::session::Session;

/// Exchanges that are known.
const MOST: usize = 4_096;
/// How long an outcome answers for requests with the old cookie, and an exchange is waited for.
const GRACE: Duration = Duration::from_secs(60);
/// How long a provider that is away is not asked about the same session again.
const PAUSE: Duration = Duration::from_secs(5);

static FLIGHTS: LazyLock<Flights> = LazyLock::new(Flights::default);

/// What came of an exchange.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    New(Arc<Session>),
    /// The provider gives nothing more.
    Ended,
    /// It can not be told now.
    Away,
}

pub(super) type Waiting = watch::Receiver<Option<Outcome>>;

/// One's part in an exchange.
#[derive(Debug)]
pub(super) enum Seat {
    /// To carry it out, and tell the others.
    Lead(watch::Sender<Option<Outcome>>, Waiting),
    Wait(Waiting),
    /// There are too many.
    None,
}

#[derive(Debug, Default)]
struct Flights(Mutex<HashMap<[u8; 32], (Waiting, Instant)>>);

/// A seat in the exchange of this token, which is due since then, among those who would make the same session of it.
pub(super) fn join(decided: &[u8; 32], token: &str, due: u64) -> Seat {
    let mut hash = Sha256::new();
    hash.update(due.to_be_bytes());
    hash.update(decided);
    hash.update(token);
    FLIGHTS.join(hash.finalize().into(), Instant::now())
}

impl Flights {
    fn join(&self, name: [u8; 32], now: Instant) -> Seat {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((waiting, begun)) = flights.get(&name)
            && is_live(waiting, *begun, now)
        {
            return Seat::Wait(waiting.clone());
        }
        if flights.len() >= MOST {
            flights.retain(|_, (waiting, begun)| is_live(waiting, *begun, now));
        }
        if flights.len() >= MOST {
            return Seat::None;
        }
        let (lead, waiting) = watch::channel(None);
        flights.insert(name, (waiting.clone(), now));
        Seat::Lead(lead, waiting)
    }
}

fn is_live(waiting: &Waiting, begun: Instant, now: Instant) -> bool {
    let age = now.saturating_duration_since(begun);
    match &*waiting.borrow() {
        Some(Outcome::New(_) | Outcome::Ended) => age < GRACE,
        Some(Outcome::Away) => age < PAUSE,
        // Who led it may be gone without a word.
        None => age < GRACE && waiting.has_changed().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(seat: Seat) -> watch::Sender<Option<Outcome>> {
        match seat {
            Seat::Lead(lead, _) => lead,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_leads_and_its_outcome_answers_for_the_late() {
        let (flights, now, name) = (Flights::default(), Instant::now(), [1; 32]);
        let first = lead(flights.join(name, now));
        assert!(matches!(flights.join(name, now), Seat::Wait(_)));
        drop(first);
        let second = lead(flights.join(name, now));
        second.send_replace(Some(Outcome::Ended));
        let late = flights.join(name, now + GRACE / 2);
        assert!(matches!(late, Seat::Wait(waiting) if matches!(*waiting.borrow(), Some(Outcome::Ended))));
        let third = lead(flights.join(name, now + GRACE));
        third.send_replace(Some(Outcome::Away));
        lead(flights.join(name, now + GRACE + PAUSE));
    }

    #[test]
    fn their_number_is_bounded() {
        let (flights, now) = (Flights::default(), Instant::now());
        let name = |n: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            name
        };
        let leads: Vec<_> = (0..MOST).map(|n| lead(flights.join(name(n), now))).collect();
        assert!(matches!(flights.join(name(MOST), now), Seat::None));
        drop(leads);
        lead(flights.join(name(MOST), now));
    }
}
