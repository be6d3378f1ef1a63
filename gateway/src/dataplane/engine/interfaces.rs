//! The configured interfaces: attaching at the start, and noticing when one is not filtered, or no longer.
//!
//! A link dies with its interface, and anyone with the right can take it off. So each interface is looked at again and
//! again, by name; where ours is gone and nobody else's is there, the program is put back. The tables outlive all of
//! that, so every list is in force with the first packet. What others put there is reported and left alone.

use std::time::Duration;

use super::{Engine, InterfaceRow};
use crate::config::model::{Xdp, XdpMode};
use crate::dataplane::backend::{Attachment, Error, Unfiltered};

/// How often the interfaces are looked at while all is well, or nothing here can mend it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often while one is missing: when it comes back, this is how long it passes everything.
const LOOK_FOR_MISSING_EVERY: Duration = Duration::from_millis(100);

/// The interfaces of the configuration, and what is known of them.
#[derive(Clone, Debug)]
pub(super) struct Interfaces {
    mode: XdpMode,
    pin_dir: String,
    all: Vec<Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    name: String,
    /// Why it is not in the mode that was asked for; known only when the program was put on.
    note: Option<String>,
    /// Why it is not filtered, as last seen by [`Engine::watch`].
    unfiltered: Option<String>,
}

impl Interfaces {
    /// Those that a program should be on; none with `mode: none`.
    pub(super) fn of(xdp: &Xdp) -> Self {
        let names = if xdp.mode == XdpMode::None {
            &[][..]
        } else {
            &xdp.interfaces
        };
        let all = names.iter().map(|name| Watched {
            name: name.clone(),
            note: None,
            unfiltered: None,
        });
        Self {
            mode: xdp.mode,
            pin_dir: xdp.pin_dir.display().to_string(),
            all: all.collect(),
        }
    }

    /// Whether sources on this interface are decided about; all are, where the proxy does it.
    pub(super) fn filter(&self, interface: &str) -> bool {
        self.mode == XdpMode::None || self.all.iter().any(|watched| watched.name == interface)
    }
}

/// What of the configured interfaces is filtered now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Whether what is in the tables has an effect anywhere.
    pub(super) enforced: bool,
    /// `eth0: reason` for each interface that is not filtered.
    pub(super) unfiltered: Vec<String>,
}

fn sentence(interface: &str, why: &str) -> String {
    format!("{interface}: {why}")
}

impl Engine {
    /// Attaches the program to the configuration's interfaces, adopting what an earlier gateway left, and takes it off
    /// those that are no longer among them. One that is not there yet is told of and waited for by [`Engine::watch`]:
    /// the others are worth no less without it.
    ///
    /// Else all or none: if one that is there can not be had and none was held before, what was made is taken away again.
    pub fn attach(&mut self) -> Result<(), Error> {
        let Some(tables) = &mut self.tables else {
            return Ok(());
        };
        let before = tables.interfaces()?;
        let mut missing = false;
        for watched in &mut self.interfaces.all {
            match tables.attach(&watched.name, self.interfaces.mode) {
                Ok(attachment) => {
                    told(&attachment);
                    watched.note = attachment.note;
                }
                Err(Error::NoInterface { interface }) => {
                    tracing::warn!(
                        target: "gateway::dataplane", %interface, why = %Unfiltered::Missing,
                        "NOT FILTERED: packets from this interface pass; it is filtered as soon as it is there"
                    );
                    watched.unfiltered = Some(Unfiltered::Missing.to_string());
                    missing = true;
                }
                Err(error) => {
                    if before.is_empty() {
                        tables.detach()?;
                    }
                    return Err(error);
                }
            }
        }
        let wanted = |name: &str| self.interfaces.all.iter().any(|watched| watched.name == name);
        for left in before.iter().filter(|left| !wanted(&left.interface)) {
            tables.release(&left.interface)?;
            tracing::info!(target: "gateway::dataplane", interface = %left.interface, "detached, as it is no longer configured");
        }
        if missing {
            self.tell_unfiltered();
        }
        Ok(())
    }

    /// Takes the program off every interface and removes all pins.
    pub fn detach(&mut self) -> Result<(), Error> {
        self.interfaces.all.clear();
        match self.tables.take() {
            Some(mut tables) => tables.detach(),
            None => Ok(()),
        }
    }

    /// Looks at the world between two reconciliations: who must not be cut off, and every configured interface. Tells
    /// when one is no longer filtered, and filters it again if that is possible. Returns when to look again.
    pub fn watch(&mut self) -> Duration {
        self.follow_facts();
        self.remind();
        self.tell_unconfirmed();
        let Some(tables) = &mut self.tables else {
            return LOOK_EVERY;
        };
        let mode = self.interfaces.mode;
        let (mut again, mut changed) = (LOOK_EVERY, false);
        for watched in &mut self.interfaces.all {
            let name = &watched.name;
            let unfiltered = match tables.interface(name) {
                Ok(Attachment { unfiltered: None, .. }) => None,
                Ok(Attachment {
                    unfiltered: Some(Unfiltered::Bare),
                    ..
                }) => {
                    if watched.unfiltered.is_none() {
                        tracing::warn!(target: "gateway::dataplane", interface = %name, "the program is gone from the interface; putting it back");
                    }
                    match tables.attach(name, mode) {
                        Ok(attachment) => {
                            told(&attachment);
                            watched.note = attachment.note;
                            None
                        }
                        Err(error) => Some(error.to_string()),
                    }
                }
                Ok(Attachment {
                    unfiltered: Some(why),
                    ..
                }) => {
                    if why == Unfiltered::Missing {
                        again = LOOK_FOR_MISSING_EVERY;
                    }
                    Some(why.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            if unfiltered != watched.unfiltered {
                match &unfiltered {
                    Some(why) => {
                        tracing::warn!(target: "gateway::dataplane", interface = %name, %why, "NOT FILTERED: packets from this interface pass");
                    }
                    None => {
                        tracing::info!(target: "gateway::dataplane", interface = %name, "filtered again");
                    }
                }
                watched.unfiltered = unfiltered;
                changed = true;
            }
        }
        if changed {
            self.tell_unfiltered();
        }
        again
    }

    /// Tells the rest of the gateway which interfaces are not filtered, as last seen.
    fn tell_unfiltered(&mut self) {
        let all = self.interfaces.all.iter();
        let unfiltered = all.filter_map(|watched| {
            let why = watched.unfiltered.as_deref()?;
            Some(sentence(&watched.name, why))
        });
        self.world.events.unfiltered(unfiltered.collect());
    }

    /// How each interface is filtered now: the configured ones, and those that an earlier gateway left filtered.
    pub fn interfaces(&mut self) -> Result<Vec<InterfaceRow>, Error> {
        let Some(tables) = &mut self.tables else {
            let all = self.interfaces.all.iter();
            let bare = all.map(|watched| InterfaceRow {
                interface: watched.name.clone(),
                mode: "none".to_owned(),
                program_id: 0,
                unfiltered: Some(format!("nothing is pinned under {}", self.interfaces.pin_dir)),
                note: None,
            });
            return Ok(bare.collect());
        };
        let mut rows = Vec::new();
        for watched in &self.interfaces.all {
            let state = tables.interface(&watched.name)?;
            rows.push(InterfaceRow::from(Attachment {
                note: watched.note.clone().filter(|_| state.unfiltered.is_none()),
                ..state
            }));
        }
        for left in tables.interfaces()? {
            if !rows.iter().any(|row| row.interface == left.interface) {
                rows.push(left.into());
            }
        }
        Ok(rows)
    }

    /// Whether what is in the tables has an effect anywhere, and `eth0: reason` for each interface that is not filtered.
    pub fn filtered(&mut self) -> Result<(bool, Vec<String>), Error> {
        let Coverage { enforced, unfiltered } = self.coverage()?;
        Ok((enforced, unfiltered))
    }

    pub(super) fn coverage(&mut self) -> Result<Coverage, Error> {
        let Some(tables) = &mut self.tables else {
            return Ok(Coverage::default());
        };
        let mut unfiltered = Vec::new();
        for watched in &self.interfaces.all {
            if let Some(why) = tables.interface(&watched.name)?.unfiltered {
                unfiltered.push(sentence(&watched.name, &why.to_string()));
            }
        }
        let all = self.interfaces.all.len();
        Ok(Coverage {
            // Without interfaces the proxy enforces by itself.
            enforced: all == 0 || unfiltered.len() < all,
            unfiltered,
        })
    }
}

fn told(attachment: &Attachment) {
    let Attachment {
        interface,
        mode,
        program,
        adopted,
        note,
        ..
    } = attachment;
    tracing::info!(target: "gateway::dataplane", %interface, ?mode, program, adopted, note, "attached");
}
