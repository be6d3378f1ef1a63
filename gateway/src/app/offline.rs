//! The engine without a daemon: on the pinned tables, or, when nothing is pinned, on the state on disk alone.

use super::host;
use crate::config::Config;
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{NoEvents, World};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::lock::PinLock;
use crate::dataplane::store::{self, Saved, Store, StoreError};
use crate::dataplane::{Backend, Engine, Error};

/// The engine, with the right to write what it holds.
#[derive(Debug)]
pub struct Offline {
    pub engine: Engine,
    _pins: Option<PinLock>,
}

/// Opens what is there. `writes` takes the locks on the state and on the tables; without them nothing can be changed.
pub fn engine(config: &Config, writes: bool) -> anyhow::Result<Offline> {
    let (saved, store) = if writes {
        let store = Store::lock(&config.state_dir)?;
        (store.load()?, Some(store))
    } else {
        (store::peek(&config.state_dir)?, None)
    };
    let pins = if writes { pin_lock(config)? } else { None };
    Ok(Offline {
        engine: open(pinned(config)?, config, saved, store)?,
        _pins: pins,
    })
}

/// The lock on the tables; `None` if there are none.
fn pin_lock(config: &Config) -> Result<Option<PinLock>, Error> {
    let there = config.xdp.mode != XdpMode::None && Kernel::is_pinned(&config.xdp.pin_dir)?;
    there.then(|| Kernel::lock(&config.xdp.pin_dir)).transpose()
}

/// Denies of the configuration that would be skipped if the gateway ran here now, as text. Touches nothing.
pub fn skipped(config: &Config) -> anyhow::Result<Vec<String>> {
    // What was commanded is left out if it can not be read: a check needs no privileges.
    let saved = store::peek(&config.state_dir).unwrap_or_default();
    Ok(open(None, config, saved, None)?.skipped())
}

fn open(
    tables: Option<Box<dyn Backend>>,
    config: &Config,
    saved: Vec<Saved>,
    store: Option<Store>,
) -> Result<Engine, Error> {
    let world = World {
        clock: Box::new(Now::read),
        host: Box::new(host::gather),
        events: Box::new(NoEvents),
    };
    let mut engine = Engine::open(tables, config, saved, store, world)?;
    engine.guard();
    Ok(engine)
}

/// Removes the program, the tables and the pins. `false` if nothing was there.
pub fn detach(config: &Config) -> anyhow::Result<bool> {
    // The locks show that no gateway runs: one that does would go on believing in its tables.
    const RUNS: &str = "stop the gateway first";
    let _store = Store::lock(&config.state_dir).map_err(|error| match error {
        StoreError::Locked { .. } => anyhow::Error::new(error).context(RUNS),
        _ => error.into(),
    })?;
    let pins = pin_lock(config).map_err(|error| match error {
        Error::Locked { .. } => anyhow::Error::new(error).context(RUNS),
        _ => error.into(),
    })?;
    if pins.is_some() {
        Kernel::remove(&config.xdp.pin_dir)?;
    }
    Ok(pins.is_some())
}

fn pinned(config: &Config) -> Result<Option<Box<dyn Backend>>, Error> {
    if config.xdp.mode == XdpMode::None {
        return Ok(None);
    }
    match Kernel::pinned(&config.xdp.pin_dir) {
        Ok(kernel) => Ok(Some(Box::new(kernel))),
        Err(Error::NotPinned { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
