//! The settings' two copies and the selector between them, and the random keys in them.

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

    /// Gives fresh tables their random keys, which stay for their life. Returns those of the address tables.
    pub fn draw_keys(&mut self) -> Result<[u64; 4], Error> {
        let mut settings = self.read()?;
        if settings.layout.mix == [0; 4] {
            for word in settings.hash_key.iter_mut().chain(&mut settings.layout.mix) {
                *word = getrandom::u64().map_err(|e| load_failed("drawing the hash keys", &e))?;
            }
            // Odd, which also is never the zero of "not drawn yet".
            settings.layout.mix[0] |= 1;
            self.write(settings)?;
        }
        Ok(settings.layout.mix)
    }
}
