//! The settings' two copies and the selector between them, and the drawing of the random keys in them.

use aya::maps::{Array, MapData};
use gateway_common::tables::{Settings, names};

use super::error::{load_failed, map_failed};
use crate::dataplane::Error;

/// `BPF_ANY`: insert or replace.
const ANY: u64 = 0;

/// Both maps.
pub struct Copies {
    pub copies: Array<MapData, Settings>,
    pub selector: Array<MapData, u32>,
}

impl Copies {
    /// The settings in force.
    pub fn read(&self) -> Result<Settings, Error> {
        self.copies
            .get(&self.live()?, 0)
            .map_err(|e| map_failed("reading", names::SETTINGS, e))
    }

    fn live(&self) -> Result<u32, Error> {
        let selector = self
            .selector
            .get(&0, 0)
            .map_err(|e| map_failed("reading", names::SELECTOR, e))?;
        Ok(selector & 1)
    }

    /// Fills the idle copy, switches to it, and reads back.
    pub fn write(&mut self, wanted: Settings) -> Result<(), Error> {
        let idle = 1 - self.live()?;
        self.copies
            .set(idle, wanted, ANY)
            .map_err(|e| map_failed("writing", names::SETTINGS, e))?;
        self.selector
            .set(0, idle, ANY)
            .map_err(|e| map_failed("writing", names::SELECTOR, e))?;
        if self.read()? == wanted {
            return Ok(());
        }
        let detail = "they are not what was written: another process writes the same tables".into();
        Err(Error::Load {
            operation: "reading back the settings".into(),
            detail,
        })
    }

    /// The copy that is not in force: the settings before these, and zeros in fresh tables.
    pub fn idle(&self) -> Result<Settings, Error> {
        self.copies
            .get(&(1 - self.live()?), 0)
            .map_err(|e| map_failed("reading", names::SETTINGS, e))
    }

    /// Whether the selector names no copy: the program then has no settings, and passes everything.
    pub fn are_lost(&self) -> Result<bool, Error> {
        let selector = self.selector.get(&0, 0);
        Ok(selector.map_err(|e| map_failed("reading", names::SELECTOR, e))? > 1)
    }
}

/// Random keys for a hash, the first of them odd, and so never all zero.
pub fn draw_keys<const N: usize>() -> Result<[u64; N], Error> {
    let mut keys = [0; N];
    for key in &mut keys {
        *key = getrandom::u64().map_err(|e| load_failed("drawing the hash keys", &e))?;
    }
    if let Some(first) = keys.first_mut() {
        *first |= 1;
    }
    Ok(keys)
}
