//! The engine without a daemon: on the pinned tables, or, when nothing is pinned, on the state on disk alone.

mod held;
pub mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use super::host;
use crate::config::Config;
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{NoEvents, World};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::lock::{Holder, PinLock};
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
}

impl OfflineError {
    /// Who has the right to write, if that is why.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Store(error) => error.holder(),
            Self::Tables(error) => error.holder(),
        }
    }

    /// Whether somebody else has the right to write.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.holder().is_some()
    }
}

/// Longest wait for another command that is at work on the same state: a list of a million takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long a gateway that starts or stops may hold its locks while nobody answers.
const PATIENCE_WITH_GATEWAY: Duration = Duration::from_secs(3);
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Tries until it works, fails for another reason than somebody's being at work there, or has been tried for long enough.
pub fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    holder: impl Fn(&E) -> Option<&Holder>,
) -> Result<T, E> {
    let began = Instant::now();
    loop {
        let error = match attempt() {
            Err(error) => error,
            done => return done,
        };
        let longest = match holder(&error) {
            Some(holder) if holder.is_gateway() => PATIENCE_WITH_GATEWAY,
            Some(_) => PATIENCE,
            None => return Err(error),
        };
        if began.elapsed() >= longest {
            return Err(error);
        }
        std::thread::sleep(TRY_EVERY);
    }
}

/// The engine, with the right to write what it holds.
#[derive(Debug)]
pub struct Offline {
    pub engine: Engine,
    /// What of the state on disk could not be read, though nothing is to be written: it is known from the tables alone.
    pub fault: Option<String>,
    _pins: Option<PinLock>,
}

/// Opens what is there. `writes` takes the locks on the state and on the tables; without them nothing can be changed.
pub fn engine(config: &Config, trust: Trust, writes: bool) -> Result<Offline, OfflineError> {
    let (mut saved, mut store, mut fault) = (Vec::new(), None, None);
    if writes {
        let locked = Store::lock(&config.state_dir)?;
        saved = locked.load()?;
        store = Some(locked);
    } else {
        match store::peek(&config.state_dir) {
            Ok(rules) => saved = rules,
            Err(damaged @ StoreError::Damaged { .. }) => fault = Some(damaged.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let pins = if writes { pin_lock(config)? } else { None };
    let mut tables = pinned(config)?;
    let mut config = config.clone();
    let world = world();
    let held = trust == Trust::Part && tables.is_some();
    if let (true, Some(tables)) = (held, &mut tables) {
        let image = tables.enforced()?;
        held::configure(&mut config.xdp, &image, &tables.interfaces()?);
        if held::remember(&mut saved, &image, (world.clock)()) {
            store.iter().for_each(Store::distrust);
        }
    } else if let (Some(_), Some(tables)) = (&fault, &mut tables) {
        held::remember(&mut saved, &tables.enforced()?, (world.clock)());
    }
    let mut engine = Engine::open(tables, &config, saved, store, world)?;
    if held {
        engine.hold();
    }
    engine.guard();
    Ok(Offline {
        engine,
        fault,
        _pins: pins,
    })
}

/// Denies of the configuration that would be skipped if the gateway ran here now, as text. Touches nothing.
pub fn skipped(config: &Config) -> Result<Vec<String>, OfflineError> {
    // What was commanded is left out if it can not be read: a check needs no privileges.
    let saved = store::peek(&config.state_dir).unwrap_or_default();
    let mut engine = Engine::open(None, config, saved, None, world())?;
    engine.guard();
    Ok(engine.skipped())
}

/// The world as a command sees it: nobody listens.
fn world() -> World {
    World {
        clock: Box::new(Now::read),
        host: Box::new(host::gather),
        events: Box::new(NoEvents),
    }
}

/// What came of taking everything away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Whether anything was there.
    pub any: bool,
    /// What became of the sysctls that were set for SYN cookies.
    pub sysctls: Vec<String>,
}

/// Removes the program, the tables and the pins, and sets back what was set for them.
///
/// The locks show that no gateway runs: one that does would go on believing in its tables.
pub fn detach(config: &Config) -> Result<Detached, OfflineError> {
    let _state = hold_state(&config.state_dir)?;
    let pins = pin_lock(config)?;
    if pins.is_some() {
        Kernel::remove(&config.xdp.pin_dir)?;
    }
    Ok(Detached {
        any: pins.is_some(),
        sysctls: Kernel::restore_sysctls(&config.state_dir),
    })
}

/// The lock on the state.
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

/// Whether tables are, or may be, pinned.
fn is_pinned(config: &Config) -> Result<bool, Error> {
    Ok(config.xdp.mode != XdpMode::None && Kernel::is_pinned(&config.xdp.pin_dir)?)
}

/// The lock on the tables; `None` if there are none.
fn pin_lock(config: &Config) -> Result<Option<PinLock>, Error> {
    is_pinned(config)?
        .then(|| Kernel::lock(&config.xdp.pin_dir))
        .transpose()
}

fn pinned(config: &Config) -> Result<Option<Box<dyn Backend>>, Error> {
    if !is_pinned(config)? {
        return Ok(None);
    }
    match Kernel::pinned(&config.xdp.pin_dir) {
        Ok(kernel) => Ok(Some(Box::new(kernel))),
        Err(Error::NotPinned { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
