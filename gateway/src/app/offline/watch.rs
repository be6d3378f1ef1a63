//! Watching drops without a gateway: straight from the pinned ring, by one process at a time.
//!
//! The tables are locked only while the program is told to write events or no longer, so that a gateway can start and
//! other commands work meanwhile. Both clear what they do not know of; [`Direct::check`] sees that and sets it again,
//! or says that a gateway has taken over. A watch that is killed outright leaves events on until the next start, command
//! that writes, or watch; that costs one event at a time until the ring is full.

use std::path::PathBuf;

use gateway_common::tables::{Event, feature};

use super::{OfflineError, Trust, engine};
use crate::config::Config;
use crate::dataplane::clock::Now;
use crate::dataplane::events::{Interfaces, Sighting};
use crate::dataplane::kernel::{EventRing, Kernel};
use crate::dataplane::{Backend as _, Error};

/// The ring and what is needed to keep it filled.
#[derive(Debug)]
pub struct Direct {
    config: Config,
    trust: Trust,
    ring: EventRing,
    tables: Kernel,
    names: Interfaces,
    batch: Vec<Event>,
    every_ns: u64,
}

/// Whether events still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Watching,
    /// Somebody else writes the tables now: a command that is done in a moment, or a gateway, which then is the one to ask.
    Held,
    /// The tables were taken out of the kernel.
    Gone,
}

impl Direct {
    /// Opens the ring and has the program write events. Needs a tokio runtime with I/O.
    pub fn open(config: &Config, trust: Trust) -> Result<Self, OfflineError> {
        let ring = EventRing::open(&config.xdp.pin_dir)?;
        let tables = Kernel::pinned(&config.xdp.pin_dir)?;
        let mut direct = Self {
            config: config.clone(),
            trust,
            ring,
            tables,
            names: Interfaces::default(),
            batch: Vec::new(),
            every_ns: 0,
        };
        direct.every_ns = direct.listen(true)?;
        Ok(direct)
    }

    /// Time between two events on one processor, at the least.
    #[must_use]
    pub fn every_ns(&self) -> u64 {
        self.every_ns
    }

    fn listen(&self, on: bool) -> Result<u64, OfflineError> {
        let mut offline = engine(&self.config, self.trust, true)?;
        Ok(offline.engine.listen(on)?)
    }

    /// What was dropped since the last call, waiting for it. Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> std::io::Result<Vec<Sighting>> {
        self.ring.read(&mut self.batch).await?;
        let now = Now::read();
        let seen = self
            .batch
            .iter()
            .map(|event| Sighting::new(event, self.names.name(event.ifindex), now));
        let seen = seen.collect();
        self.batch.clear();
        Ok(seen)
    }

    /// Sees to it that events still come. To be called about every second.
    pub fn check(&mut self) -> Result<Standing, OfflineError> {
        let pin_dir: &PathBuf = &self.config.xdp.pin_dir;
        if !Kernel::is_pinned(pin_dir)? {
            return Ok(Standing::Gone);
        }
        if self.tables.settings()?.features & feature::EVENTS != 0 {
            return Ok(Standing::Watching);
        }
        match self.listen(true) {
            Ok(_) => Ok(Standing::Watching),
            Err(error) if error.is_held() => Ok(Standing::Held),
            Err(OfflineError::Tables(Error::NotPinned { .. })) => Ok(Standing::Gone),
            Err(error) => Err(error),
        }
    }

    /// Has the program write no more events, unless a gateway decides that now.
    pub fn close(self) -> Result<(), OfflineError> {
        match self.listen(false) {
            Err(error) if !error.is_held() => Err(error),
            _ => Ok(()),
        }
    }
}
