//! Attaching to interfaces: by a pinned link, adopted if it is there, refused if the interface is another's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};
use aya::programs::{ProgramError, loaded_programs};

use super::error::{at, load_failed};
use super::netlink::{Attached, interface};
use super::sys::Link;
use super::{Kernel, versioned};
use crate::config::model::XdpMode;
use crate::dataplane::clock::Now;
use crate::dataplane::{Attachment, Error, Unfiltered};

/// A link's program leaves its interface some milliseconds after the link's last reference is gone: so many looks, one
/// each millisecond, are more than it takes.
const MOST_LOOKS: u32 = 500;
/// File name of a link's pin, before the interface's name.
const LINK: &str = "link-";

impl Kernel {
    /// Puts the program on an interface, or swaps it into the link that an earlier process left there.
    ///
    /// Swapping is atomic and keeps the mode. If that is not the mode asked for, the link is made anew: the kernel has
    /// no program in both modes on one interface (`EEXIST`), so it is open in between, which is told with a warning.
    /// `XdpMode::None` is refused.
    pub fn attach_to(&mut self, name: &str, mode: XdpMode) -> Result<Attachment, Error> {
        let attempts: &[AyaMode] = match mode {
            XdpMode::Auto => &[AyaMode::Driver, AyaMode::Skb],
            XdpMode::Native => &[AyaMode::Driver],
            XdpMode::Generic => &[AyaMode::Skb],
            XdpMode::None => {
                let detail = "mode `none` attaches nothing".to_owned();
                return Err(Error::Load {
                    operation: format!("attaching to {name}"),
                    detail,
                });
            }
        };
        let pin = self.dir.join(format!("{LINK}{name}"));
        let found = interface(name)?;
        if let Some(attached) = ours(&pin, found.index, found.xdp)? {
            if fits(mode, attached) {
                self.adopt(&pin)?;
                return Ok(Attachment {
                    adopted: true,
                    ..self.state(name)?
                });
            }
            return self.change_mode(name, found.index, attempts, &pin, attached.native);
        }
        if pin.exists() {
            // The interface it was made for is gone, perhaps replaced by one of the same name.
            remove_link(&pin)?;
            tracing::info!(interface = name, "removed the link of an interface that is gone");
        }
        self.await_free(name)?;

        match self.link_first(found.index, attempts, &pin) {
            Ok(note) => Ok(Attachment {
                note,
                ..self.state(name)?
            }),
            // Someone may have been faster.
            Err(error) => Err(match interface(name)?.xdp {
                Some(other) => foreign(name, other),
                None => error,
            }),
        }
    }

    /// Puts the program on in the first of `attempts` that the kernel takes. Returns why it did not take the ones before.
    fn link_first(&mut self, index: u32, attempts: &[AyaMode], pin: &Path) -> Result<Option<String>, Error> {
        let mut note = None;
        let mut left = attempts.iter().peekable();
        while let Some(attempt) = left.next() {
            match self.link(index, *attempt, pin) {
                Ok(()) => return Ok(note),
                Err(error) if left.peek().is_none() => return Err(error),
                Err(error) => note = Some(error.to_string()),
            }
        }
        Ok(note)
    }

    /// Takes our link off an interface and makes one in another mode at once, with nothing in between that could wait.
    ///
    /// If the interface can not have that mode, the program is put back in the one it had: a filter that is not as it
    /// should be is better than none.
    fn change_mode(
        &mut self,
        name: &str,
        index: u32,
        attempts: &[AyaMode],
        pin: &Path,
        was_native: bool,
    ) -> Result<Attachment, Error> {
        let mode_name = |native: bool| if native { "native" } else { "generic" };
        let old_mode = if was_native { AyaMode::Driver } else { AyaMode::Skb };
        // Loaded before: it takes longer than all that follows.
        self.loaded()?;
        let open_since = Now::read();
        remove_link(pin)?;
        let linked = self.link_first(index, attempts, pin);
        let refused = linked.as_ref().err().map(ToString::to_string);
        let back = linked.or_else(|_| self.link_first(index, &[old_mode], pin));
        let open_us = Now::read().boot_ns.saturating_sub(open_since.boot_ns) / 1_000;
        let open_ms = open_us as f64 / 1_000.0;
        let from = mode_name(was_native);
        let note = back.inspect_err(|error| {
            tracing::error!(
                target: "gateway::dataplane", interface = name, %from, %error,
                "NOT FILTERED: the program was taken off to change xdp.mode, and could not be put on again"
            );
        })?;
        let state = self.state(name)?;
        let to = mode_name(state.mode == XdpMode::Native);
        if let Some(refused) = refused {
            tracing::warn!(
                target: "gateway::dataplane", interface = name, %from, open_ms,
                "xdp.mode can not be changed ({refused}); the program is back in the mode it had, and meanwhile every packet passed"
            );
            return Err(Error::Load {
                operation: format!("changing {name} from {from} mode"),
                detail: format!(
                    "{refused}; it is filtered in {from} mode as before: set xdp.mode back, or to auto"
                ),
            });
        }
        tracing::warn!(
            target: "gateway::dataplane", interface = name, %from, %to, open_ms,
            "xdp.mode has changed: the kernel can not swap it, so the interface was open for so long and every packet passed"
        );
        Ok(Attachment { note, ..state })
    }

    /// Every interface that has, or had, a link of ours.
    pub fn attachments(&mut self) -> Result<Vec<Attachment>, Error> {
        links(&self.dir)?
            .into_iter()
            .map(|(name, _)| self.state(&name))
            .collect()
    }

    /// Whether the interface `name` is filtered through the link that is pinned for it.
    ///
    /// By the program of this process, if it has one: a link that someone else pinned in the same place leads to
    /// tables that this process does not write.
    pub fn state(&mut self, name: &str) -> Result<Attachment, Error> {
        let own = self.own_program()?;
        look_at(&self.dir, name, own)
    }

    /// As [`Kernel::state`], by what is pinned under `pin_dir`, opening no table.
    pub fn look(pin_dir: &Path, name: &str) -> Result<Attachment, Error> {
        look_at(&versioned(pin_dir), name, None)
    }

    /// Waits for our own program to leave an interface, if its link was removed a moment ago. Another's is an error.
    fn await_free(&mut self, name: &str) -> Result<(), Error> {
        let own = self.own_program()?;
        let mut looks = 0;
        while let Some(other) = interface(name)?.xdp {
            if own != Some(other.program) || looks == MOST_LOOKS {
                return Err(foreign(name, other));
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The kernel's id of the program that this process loaded; `None` if it opened the tables only.
    fn own_program(&mut self) -> Result<Option<u32>, Error> {
        if self.program.is_none() {
            return Ok(None);
        }
        let info = self.loaded()?.info();
        let info = info.map_err(|e| load_failed("asking for the program's id", &e))?;
        Ok(Some(info.id()))
    }

    /// Takes the program off the interface `name`, if a link of ours is pinned for it.
    pub fn take_off(&mut self, name: &str) -> Result<(), Error> {
        let pin = self.dir.join(format!("{LINK}{name}"));
        if pin.exists() { remove_link(&pin) } else { Ok(()) }
    }

    /// Takes the program off every interface and removes every pin. The tables end with this process.
    pub fn detach_all(self) -> Result<(), Error> {
        remove_all(&self.dir)
    }

    /// As [`Kernel::detach_all`], without a running gateway. Not an error if nothing is pinned.
    pub fn remove(pin_dir: &Path) -> Result<(), Error> {
        remove_all(&versioned(pin_dir))
    }

    fn adopt(&mut self, pin: &Path) -> Result<(), Error> {
        let failed = |e: &(dyn std::error::Error + 'static)| {
            load_failed(&format!("taking over the link {}", pin.display()), e)
        };
        let link = FdLink::from(PinnedLink::from_pin(pin).map_err(|e| failed(&e))?);
        let link = XdpLink::try_from(link).map_err(|e| failed(&e))?;
        let program = self.loaded()?;
        let id = program.attach_to_link(link).map_err(|e| failed(&e))?;
        // Dropping our descriptor leaves the link to its pin.
        program.take_link(id).map(drop).map_err(|e| failed(&e))
    }

    fn link(&mut self, index: u32, mode: AyaMode, pin: &Path) -> Result<(), Error> {
        let program = self.loaded()?;
        let id = program.attach_to_if_index(index, mode).map_err(|e| match &e {
            ProgramError::SyscallError(call) => {
                let operation = format!("attaching in {mode:?} mode");
                at(operation)(std::io::Error::from_raw_os_error(
                    call.io_error.raw_os_error().unwrap_or(0),
                ))
            }
            _ => load_failed("attaching", &e),
        })?;
        let link = program.take_link(id).map_err(|e| load_failed("attaching", &e))?;
        // aya falls back to netlink before kernel 5.9, where there is nothing to pin.
        let link = FdLink::try_from(link).map_err(|e| load_failed("attaching by a link (kernel 5.9)", &e))?;
        link.pin(pin)
            .map(drop)
            .map_err(|e| load_failed("pinning the link", &e))
    }
}

/// How the interface `name` is filtered by the links in `dir`; by the program `own`, if that is known.
fn look_at(dir: &Path, name: &str, own: Option<u32>) -> Result<Attachment, Error> {
    let without = |why| Ok(Attachment::without(name, why));
    let found = match interface(name) {
        Ok(found) => found,
        Err(Error::NoInterface { .. }) => return without(Unfiltered::Missing),
        Err(error) => return Err(error),
    };
    let Some(attached) = found.xdp else {
        return without(if dir.exists() {
            Unfiltered::Bare
        } else {
            let dir = dir.display().to_string();
            Unfiltered::PinsGone { dir }
        });
    };
    let pin = dir.join(format!("{LINK}{name}"));
    let linked = ours(&pin, found.index, found.xdp)?.is_some();
    if !linked && own == Some(attached.program) {
        // Somebody removed the link, and the kernel takes its time to take the program off.
        return without(Unfiltered::Bare);
    }
    if !linked || own.is_some_and(|own| own != attached.program) {
        let (program, id) = (program_name(attached.program), attached.program);
        return without(Unfiltered::Foreign { program, id });
    }
    Ok(Attachment {
        interface: name.to_owned(),
        mode: if attached.native {
            XdpMode::Native
        } else {
            XdpMode::Generic
        },
        program: attached.program,
        unfiltered: None,
        adopted: false,
        note: None,
    })
}

/// The program on the interface, if it hangs on the link at `pin`.
fn ours(pin: &Path, index: u32, attached: Option<Attached>) -> Result<Option<Attached>, Error> {
    if !pin.exists() {
        return Ok(None);
    }
    let reading = || at(format!("reading the link {}", pin.display()));
    let info = Link::open(pin).and_then(|link| link.info()).map_err(reading())?;
    Ok(attached.filter(|attached| info.ifindex == index && info.program == attached.program))
}

fn fits(mode: XdpMode, attached: Attached) -> bool {
    match mode {
        XdpMode::Auto => true,
        XdpMode::Native => attached.native,
        XdpMode::Generic => !attached.native,
        XdpMode::None => false,
    }
}

fn foreign(interface: &str, attached: Attached) -> Error {
    Error::Foreign {
        interface: interface.to_owned(),
        program: program_name(attached.program),
        id: attached.program,
    }
}

fn program_name(id: u32) -> String {
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    name.unwrap_or_else(|| "unnamed".into())
}

/// Interface names and pins of the links in `dir`.
fn links(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut links: Vec<_> = pins(dir)?
        .into_iter()
        .filter_map(|pin| {
            let name = pin.file_name()?.to_str()?.strip_prefix(LINK)?.to_owned();
            Some((name, pin))
        })
        .collect();
    links.sort();
    Ok(links)
}

fn pins(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let reading = || at(format!("reading {}", dir.display()));
    match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()).map_err(reading()))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(reading()(error)),
    }
}

fn remove_link(pin: &Path) -> Result<(), Error> {
    // A link whose interface is gone has nothing to detach and says so; the pin is what is left of it.
    if let Err(error) = Link::open(pin).and_then(Link::detach) {
        tracing::debug!(%error, pin = %pin.display(), "detaching before removing the pin");
    }
    std::fs::remove_file(pin).map_err(at(format!("removing {}", pin.display())))
}

/// Links first: no program may stand that looks at tables nobody can reach.
pub(super) fn remove_all(dir: &Path) -> Result<(), Error> {
    for (_, pin) in links(dir)? {
        remove_link(&pin)?;
    }
    for pin in pins(dir)? {
        std::fs::remove_file(&pin).map_err(at(format!("removing {}", pin.display())))?;
    }
    if dir.exists() {
        std::fs::remove_dir(dir).map_err(at(format!("removing {}", dir.display())))?;
    }
    // The directory above is ours too unless another version or the operator keeps something in it.
    if let Some(parent) = dir.parent() {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}
