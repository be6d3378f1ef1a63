//! The engine without a daemon: on the pinned tables, or, when nothing is pinned, on the state on disk alone.

use anyhow::Context as _;

use super::host;
use crate::config::Config;
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{NoEvents, World};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::store::{self, Saved, Store};
use crate::dataplane::{Backend, Engine, Error};

/// Opens what is there. `writes` takes the lock on the state; without it nothing can be changed.
pub fn engine(config: &Config, writes: bool) -> anyhow::Result<Engine> {
    let (saved, store) = if writes {
        let store = Store::lock(&config.state_dir)?;
        (store.load()?, Some(store))
    } else {
        (store::peek(&config.state_dir)?, None)
    };
    open(pinned(config)?, config, saved, store).map_err(Into::into)
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
    // The lock shows that no gateway runs: one that does would go on believing in its tables.
    let _store = Store::lock(&config.state_dir).context("stop the gateway first")?;
    if config.xdp.mode == XdpMode::None {
        return Ok(false);
    }
    let there = config.xdp.pin_dir.exists();
    Kernel::remove(&config.xdp.pin_dir)?;
    Ok(there)
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
