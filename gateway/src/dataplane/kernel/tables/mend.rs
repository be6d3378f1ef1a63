//! What no list shows: keys, layout, and whether look-ups find what stands in the tables. Takes it over from an earlier
//! process, holds it against what was last written, and puts it right.
//!
//! The keys stay for the life of the tables, so this process knows them. A layout that differs, but is one that we could
//! have written, is taken for what it says: its halves are compared as all others are. After a restart the keys in force
//! are believed if there can be such, else those of the settings before; entries that do not stand where the keys put them
//! are written anew.

use gateway_common::tables::{Layout, Settings, feature};

use super::{Anew, Halves, Maps, Own, full};
use crate::dataplane::kernel::settings::draw_keys;
use crate::dataplane::{Error, Mended};

/// Whether these can be keys of single addresses: they are drawn so that the first is odd.
fn is_key(mix: &[u64; 4]) -> bool {
    mix[0] & 1 == 1
}

impl Maps {
    /// Finds the keys and the layout of tables that are there, and makes those of fresh ones. What was tampered with
    /// meanwhile stays until [`Maps::mend`]: whoever only reads must change nothing.
    pub(super) fn take_over(&mut self) -> Result<(), Error> {
        let (found, before) = (self.settings.read()?, self.settings.idle()?);
        let copies = [&found, &before];
        let mix = copies.map(|copy| copy.layout.mix).into_iter().find(is_key);
        let mix = mix.map_or_else(draw_keys, Ok)?;
        let hash_key = copies
            .map(|copy| copy.hash_key)
            .into_iter()
            .find(|key| *key != [0; 2]);
        let hash_key = hash_key.map_or_else(draw_keys, Ok)?;
        let places = copies
            .map(|copy| copy.layout)
            .into_iter()
            .find(|layout| self.has_places(layout));
        let fresh = places.is_none();
        let layout = match places {
            Some(places) => Layout { mix, ..places },
            None => self.lay_out(mix)?,
        };
        for table in &mut self.addresses {
            table.hash_by(layout.mix);
        }
        self.own = Own { hash_key, layout };
        if fresh {
            self.write_settings(Settings {
                hash_key,
                layout,
                ..found
            })?;
        }
        Ok(())
    }

    /// The layout of fresh tables.
    fn lay_out(&self, mix: [u64; 4]) -> Result<Layout, Error> {
        let last6 = self.networks.write(0, &[]);
        let last6 = last6.map_err(|_| full("deny_prefixes", 0))?;
        let keys = Layout {
            mix,
            ..Layout::default()
        };
        let halves = Halves {
            addresses: [0; 2],
            networks: 0,
        };
        Ok(self.layout(&keys, halves, last6))
    }

    /// Whether these are places that we could have laid these maps out in, whatever the keys.
    fn has_places(&self, layout: &Layout) -> bool {
        let laid_out = self.layout(layout, Halves::of(layout), layout.last6);
        *layout == laid_out && layout.last6 < self.networks.ranges && layout._pad == 0
    }

    /// The settings in force, with what is our own as it should be.
    pub(super) fn kept(&self) -> Result<Settings, Error> {
        let found = self.settings()?;
        let own = self.own;
        let sound = found.layout.mix == own.layout.mix && self.has_places(&found.layout);
        Ok(Settings {
            hash_key: own.hash_key,
            layout: if sound { found.layout } else { own.layout },
            ..found
        })
    }

    /// See [`crate::dataplane::Backend::mend`]. Walks all entries once, and cuts the networks as if they were written: in
    /// memory, so a million addresses take some ten milliseconds.
    pub fn mend(&mut self) -> Result<Vec<Mended>, Error> {
        let mut mended = Vec::new();
        let mut say = |kind, what: String| mended.push(Mended { kind, what });
        let (found, kept) = (self.settings()?, self.kept()?);
        let tables = self.counts.table_bits();
        let layout = Layout {
            mix: found.layout.mix,
            ..kept.layout
        };
        let parts = [
            ("limiter's key", found.hash_key != kept.hash_key),
            ("key of single addresses", found.layout.mix != kept.layout.mix),
            ("layout of the tables", found.layout != layout),
            (
                "marks of tables with entries",
                found.features & feature::TABLES != tables,
            ),
            ("selector", self.settings.are_lost()?),
        ];
        let differing: Vec<&str> = parts
            .iter()
            .filter_map(|(part, differs)| differs.then_some(*part))
            .collect();
        if !differing.is_empty() {
            say(
                "settings",
                format!("the settings differed: {}", differing.join(", ")),
            );
            let features = kept.features & !feature::TABLES | tables;
            self.write_settings(Settings { features, ..kept })?;
        }

        let halves = Halves::of(&kept.layout);
        let astray = [0, 1].map(|at| self.addresses[at].astray(halves.addresses[at]));
        let anew = Anew {
            addresses: astray.map(|entries| entries > 0),
            networks: !self.networks.is_cut(halves.networks, kept.layout.last6),
        };
        for (entries, family) in astray.into_iter().zip(["IPv4", "IPv6"]) {
            if entries > 0 {
                let what = format!("{entries} {family} addresses stood where no packet finds them");
                say("tables", what);
            }
        }
        if anew.networks {
            let what = "the ranges that packets are looked up in were not those of the networks";
            say("tables", what.to_owned());
        }
        if anew != Anew::default() {
            self.switch(&[], anew)?;
            let layout = self.kept()?.layout;
            self.count(&layout);
        }
        Ok(mended)
    }
}
