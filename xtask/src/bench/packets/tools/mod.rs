//! The programs under test, each given the same rules in its own words, as its makers advise.

mod empty;
mod gateway;
mod nftables;
mod xdp_filter;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::rig::Lane;
use super::traffic::{Net, Sources};

pub use gateway::{Gateway, Imported};
pub use nftables::load_seconds as nft_load_seconds;

/// What a program is to do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whose packets are dropped.
    pub deny: &'static [Sources],
    /// Whether SYNs of one source are limited.
    pub syn_limit: bool,
}

/// SYNs that a source may send in a second, and at once.
const SYN_RATE: u32 = 50;
const SYN_BURST: u32 = 100;

/// The programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Gateway,
    XdpFilter,
    NftRaw,
    NftIngress,
    /// Drops everything: what is left is the cost of the rig.
    Ceiling,
    /// Nothing at all: packets go straight to the stack.
    Nothing,
}

impl Tool {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::XdpFilter => "xdp-filter",
            Self::NftRaw => "nftables raw prerouting",
            Self::NftIngress => "nftables netdev ingress",
            Self::Ceiling => "empty program, drops all",
            Self::Nothing => "no filter",
        }
    }

    /// Puts the program to work in a lane.
    pub fn start(self, lane: &Lane, rules: &Rules, home: &Home) -> Result<Box<dyn Running>> {
        Ok(match self {
            Self::Gateway => Box::new(Gateway::start(lane, rules, home)?),
            Self::XdpFilter => Box::new(xdp_filter::start(lane, rules)?),
            Self::NftRaw => Box::new(nftables::start(lane, rules, home, nftables::Hook::Raw)?),
            Self::NftIngress => Box::new(nftables::start(lane, rules, home, nftables::Hook::Ingress)?),
            Self::Ceiling => Box::new(empty::start(lane)?),
            Self::Nothing => Box::new(empty::Nothing),
        })
    }
}

/// A program at work, until this is dropped.
pub trait Running {
    /// Packets that it says it has dropped; `None` if it does not count.
    fn dropped(&self, lane: &Lane) -> Result<Option<u64>>;

    /// What a reader should know about how it was set up.
    fn note(&self) -> Option<String> {
        None
    }
}

/// Where the files of a run are, and the gateway's binary.
#[derive(Debug)]
pub struct Home {
    pub dir: PathBuf,
    pub gateway: PathBuf,
    /// The core of processes that are not measured.
    pub core: usize,
}

impl Home {
    /// Makes the directory, without what an earlier run may have left in it. Made here, since it holds files of root's.
    pub fn new(dir: PathBuf, gateway: PathBuf, core: usize) -> Result<Self> {
        let home = Self { dir, gateway, core };
        home.remove()?;
        std::fs::create_dir(&home.dir).with_context(|| format!("making {}", home.dir.display()))?;
        Ok(home)
    }

    fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let mut file = BufWriter::new(file);
        write(&mut file)
            .and_then(|()| file.flush())
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A list as text, one network a line.
    fn list(&self, name: &str, nets: impl Iterator<Item = Net>) -> Result<PathBuf> {
        self.write(name, |file| {
            for net in nets {
                writeln!(file, "{net}")?;
            }
            Ok(())
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The next run removes what this one could not.
        let _ = self.remove();
    }
}

/// A path as an argument among strings.
fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
