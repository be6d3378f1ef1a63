//! The ring of events: what the kernel program tells of the packets that it drops, while the settings say that somebody
//! reads.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use gateway_common::tables::{Event, names};
use tokio::io::unix::AsyncFd;

use super::error::{at, load_failed};
use super::versioned;
use crate::dataplane::Error;
use crate::dataplane::lock::{LockError, exclusive};

/// Events handed over at one time.
const BATCH: usize = 1_024;

/// The reading end. There is one at a time: what is read is gone for others.
pub struct EventRing {
    ring: AsyncFd<RingBuf<MapData>>,
    /// The directory of the pins, locked for as long as the ring is read.
    _reader: File,
}

impl std::fmt::Debug for EventRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventRing")
    }
}

impl EventRing {
    /// Opens the pinned ring and throws away what was left in it. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`Error::Watched`] if another process reads it, [`Error::NotPinned`] if there is none.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let dir = versioned(pin_dir);
        let opening = || format!("opening the ring of events in {}", dir.display());
        let reader = File::open(&dir).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NotPinned {
                dir: dir.display().to_string(),
            },
            _ => at(opening())(error),
        })?;
        exclusive(&reader).map_err(|error| match error {
            LockError::Held(holder) => Error::Watched { pid: holder.pid },
            LockError::Io(error) => at(opening())(error),
        })?;
        let map = MapData::from_pin(dir.join(names::EVENTS)).and_then(Map::from_map_data);
        let ring = map.and_then(RingBuf::try_from);
        let mut ring = ring.map_err(|e| load_failed(&opening(), &e))?;
        while ring.next().is_some() {}
        // SAFETY: the ring owns the map's descriptor, always returns the same one and never closes it early.
        let ring = unsafe { AsyncFd::register(ring) };
        Ok(Self {
            ring: ring.map_err(|error| at(opening())(error.into()))?,
            _reader: reader,
        })
    }

    /// Waits for events and adds them to `into`; a flood of them in several calls. Nothing is lost if it is dropped.
    pub async fn read(&mut self, into: &mut Vec<Event>) -> std::io::Result<()> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let most = into.len() + BATCH;
            let ring = ready.get_inner_mut();
            let mut drained = false;
            while into.len() < most {
                let Some(item) = ring.next() else {
                    drained = true;
                    break;
                };
                into.extend(event(&item));
            }
            if drained {
                ready.clear_ready();
            }
            if !into.is_empty() {
                return Ok(());
            }
        }
    }
}

/// An event as the program wrote it; `None` for another length than ours.
fn event(bytes: &[u8]) -> Option<Event> {
    // SAFETY: as many bytes as an event has, which may lie anywhere; any bit pattern of them is one.
    (bytes.len() == size_of::<Event>()).then(|| unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_long_as_an_event_is_one() {
        let mut bytes = [0_u8; size_of::<Event>() + 1];
        bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
        let whole = event(&bytes[..size_of::<Event>()]);
        assert_eq!(whole.map(|event| event.time_ns), Some(7));
        assert_eq!(event(&bytes), None);
        assert_eq!(event(&bytes[..8]), None);
    }
}
