//! The engine without a daemon: on the pinned tables, or, when nothing is pinned, on the state on disk alone.

mod held;

use std::path::Path;

use super::host;
use crate::config::Config;
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{NoEvents, World};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::privilege;
use crate::dataplane::store::{self, Store, StoreError};
use crate::dataplane::{Backend, Engine, Error};

/// How far the configuration can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is good: its lists and limits are what should be in force.
    Whole,
    /// Parts of it could not be read: what the tables hold stays as it is, save for what is commanded.
    Part,
}

/// Why the tables could not be worked on without a daemon.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tables(#[from] Error),
    #[error("can not look under {dir}: {cause}{}", privilege::for_kernel(.cause))]
    Pins { dir: String, cause: std::io::Error },
}

/// Opens what is there. `writes` takes the lock on the state; without it nothing can be changed.
pub fn engine(config: &Config, trust: Trust, writes: bool) -> Result<Engine, OfflineError> {
    let (mut saved, store) = if writes {
        let store = Store::lock(&config.state_dir)?;
        (store.load()?, Some(store))
    } else {
        (store::peek(&config.state_dir)?, None)
    };
    let world = World {
        clock: Box::new(Now::read),
        host: Box::new(host::gather),
        events: Box::new(NoEvents),
    };
    let mut tables = pinned(config)?;
    let mut config = config.clone();
    if let (Trust::Part, Some(tables)) = (trust, &mut tables) {
        let image = tables.enforced()?;
        held::configure(&mut config.xdp, &image);
        held::remember(&mut saved, &image, (world.clock)());
    }
    Ok(Engine::open(tables, &config, saved, store, world)?)
}

/// Removes the program, the tables and the pins. `false` if nothing was there.
pub fn detach(config: &Config) -> Result<bool, OfflineError> {
    let _lock = hold_state(&config.state_dir)?;
    if config.xdp.mode == XdpMode::None {
        return Ok(false);
    }
    let there = is_there(&config.xdp.pin_dir)?;
    Kernel::remove(&config.xdp.pin_dir)?;
    Ok(there)
}

/// Takes the lock on the state, which shows that no gateway runs: one that does would go on believing in its tables.
///
/// A state directory that is not there is nobody's, and one on a broken disk must not keep the filter attached.
fn hold_state(dir: &Path) -> Result<Option<Store>, StoreError> {
    if matches!(dir.try_exists(), Ok(false)) {
        return Ok(None);
    }
    match Store::lock(dir) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Io { cause, .. }) if cause.kind() != std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn pinned(config: &Config) -> Result<Option<Box<dyn Backend>>, OfflineError> {
    if config.xdp.mode == XdpMode::None || !is_there(&config.xdp.pin_dir)? {
        return Ok(None);
    }
    match Kernel::pinned(&config.xdp.pin_dir) {
        Ok(kernel) => Ok(Some(Box::new(kernel))),
        Err(Error::NotPinned { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the directory of pins exists. Not to be allowed to look is not the same as there being nothing.
fn is_there(dir: &Path) -> Result<bool, OfflineError> {
    dir.try_exists().map_err(|cause| OfflineError::Pins {
        dir: dir.display().to_string(),
        cause,
    })
}
