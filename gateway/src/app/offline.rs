//! The engine without a daemon: on the pinned tables, or, when nothing is pinned, on the state on disk alone.

use anyhow::Context as _;

use super::host;
use crate::config::Config;
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{NoEvents, World};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::store::{self, Store};
use crate::dataplane::{Backend, Engine, Error};

/// Opens what is there. `writes` takes the lock on the state; without it nothing can be changed.
pub fn engine(config: &Config, writes: bool) -> anyhow::Result<Engine> {
    let (saved, store) = if writes {
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
    Ok(Engine::open(pinned(config)?, config, saved, store, world)?)
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
