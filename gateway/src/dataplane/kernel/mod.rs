//! The kernel's tables and programs: the only place that names aya.
//!
//! Owns loading, pinning, attaching, and the map calls behind [`Backend`]. Must not know what should be in the tables.
//!
//! Everything lives under `<pin_dir>/v<ABI>/` on bpffs: each map under its name, each attachment as a pinned link
//! `link-<interface>`. A link holds its program and the program its maps, so a gateway that dies leaves everything
//! at work, and the next one *adopts* it: it opens the same maps and swaps the program inside the same link, which
//! the kernel does at once for all processors. There is no moment without a program, and never two.

mod addresses;
mod attach;
mod cookies;
mod counts;
mod error;
mod log;
mod netlink;
mod networks;
mod region;
mod ring;
mod settings;
mod sizes;
mod sys;
mod sysctls;
mod tables;

pub use log::KernelLog;
pub use ring::EventRing;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use gateway_common::ABI_VERSION;
use gateway_common::tables::{Rule, Settings, names};
use ipnet::IpNet;

use self::error::{at, load_failed};
use self::sysctls::Sysctls;
use self::tables::Maps;
use super::lock::{LockError, PinLock};
use super::{Attachment, Backend, Change, Counters, Error, Found, Image, List, Mended, Room};
use crate::config::model::{self, Capacity, XdpMode};
use crate::dataplane::cookies::Ability;

/// The kernel program, as the build script made it. Public so that a test can compare it with `gateway_common`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("GATEWAY_BPF_OBJECT_FILE"));

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on bpffs; created if it is missing.
    pub pin_dir: PathBuf,
    /// Sizes of tables that are not pinned yet.
    pub capacity: Capacity,
}

/// The kernel as a [`Backend`].
#[derive(Debug)]
pub struct Kernel {
    dir: PathBuf,
    maps: Maps,
    /// Absent if only the pinned tables were opened.
    program: Option<Ebpf>,
    warnings: Vec<String>,
    sysctls: Sysctls,
}

impl Kernel {
    /// Loads the program and opens its tables, adopting those that are pinned.
    ///
    /// Mounts bpffs if it is missing. Nothing is attached and nothing filtered until [`Kernel::attach`].
    /// A pinned table of another capacity than configured is kept, since it holds what must not be lost: see
    /// [`Kernel::warnings`].
    pub fn load(options: &Options) -> Result<Self, Error> {
        sys::lift_memory_limit();
        sys::ensure_bpffs(&options.pin_dir)?;
        let dir = versioned(&options.pin_dir);
        std::fs::create_dir_all(&dir).map_err(at(format!("creating {}", dir.display())))?;

        let sizes = sizes::sizes(&options.capacity);
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(&dir)
            .verifier_log_level(VerifierLogLevel::STATS);
        for (name, entries) in sizes {
            loader.map_max_entries(name, entries);
        }
        let mut program = loader
            .load(OBJECT)
            .map_err(|e| load_failed("creating the kernel tables", &e))?;
        xdp(&mut program)?
            .load()
            .map_err(|e| load_failed("loading the kernel program", &e))?;

        let maps = Maps::open(&dir, Some(&options.capacity))?;
        let warnings = sizes::other_sizes(&sizes, &options.capacity, |name| maps.capacity(name));
        Ok(Self {
            dir,
            maps,
            program: Some(program),
            warnings,
            sysctls: Sysctls::new(None),
        })
    }

    /// Takes the right to write the tables under `pin_dir`, mounting bpffs and making the directory if need be.
    pub fn lock(pin_dir: &Path) -> Result<PinLock, Error> {
        sys::ensure_bpffs(pin_dir)?;
        PinLock::take(pin_dir).map_err(|error| match error {
            LockError::Held(holder) => {
                let dir = pin_dir.display().to_string();
                Error::Locked { dir, holder }
            }
            LockError::Io(source) => at(format!("locking {}", pin_dir.display()))(source),
        })
    }

    /// Whether anything is pinned under `pin_dir`, or could not be looked at.
    pub fn is_pinned(pin_dir: &Path) -> Result<bool, Error> {
        let looking = || at(format!("looking for {}", pin_dir.display()));
        pin_dir.try_exists().map_err(looking())
    }

    /// Opens the pinned tables only, for a command without a daemon. [`Error::NotPinned`] if there are none.
    pub fn pinned(pin_dir: &Path) -> Result<Self, Error> {
        let dir = versioned(pin_dir);
        let settings = dir.join(names::SETTINGS);
        let there = settings.try_exists();
        if !there.map_err(at(format!("looking for {}", settings.display())))? {
            return Err(Error::NotPinned {
                dir: dir.display().to_string(),
            });
        }
        let maps = Maps::open(&dir, None)?;
        Ok(Self {
            dir,
            maps,
            program: None,
            warnings: Vec::new(),
            sysctls: Sysctls::new(None),
        })
    }

    /// Remembers under `state_dir` what sysctls were before they are set for SYN cookies.
    pub fn remember_sysctls(&mut self, state_dir: &Path) {
        self.sysctls = Sysctls::new(Some(state_dir));
    }

    /// Sets back the sysctls that a gateway with this `state_dir` set for SYN cookies. Returns what came of it, in words.
    pub fn restore_sysctls(state_dir: &Path) -> Vec<String> {
        Sysctls::new(Some(state_dir)).restore()
    }

    /// What an operator should hear about how loading went.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The program's log lines; `None` the second time, and without a program.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        KernelLog::new(self.program.as_mut()?)
    }

    /// Runs the program `repeat` times over one frame of at least 14 bytes (the kernel refuses shorter ones), without
    /// a network. Returns the XDP action and the mean time of a run.
    pub fn test_run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration), Error> {
        let program = self.loaded()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program
            .test_run(options)
            .map_err(|e| load_failed("running the program over a frame", &e))?;
        Ok((result.return_value, result.duration))
    }

    /// Instructions of a loaded program that the verifier looked at, of the million it looks at most; `None` before kernel
    /// 5.16.
    pub fn verified_instructions(&mut self, program: &str) -> Result<Option<u32>, Error> {
        let missing = || Error::Load {
            operation: format!("asking for {program}"),
            detail: "there is no such program".into(),
        };
        let found = self.program.as_mut().and_then(|all| all.program_mut(program));
        let info = found.ok_or_else(missing)?.info();
        let info = info.map_err(|e| load_failed("reading what the kernel knows of the program", &e))?;
        Ok(info.verified_instruction_count())
    }

    fn loaded(&mut self) -> Result<&mut Xdp, Error> {
        let dir = &self.dir;
        let program = self.program.as_mut().ok_or_else(|| Error::NotPinned {
            dir: dir.display().to_string(),
        })?;
        xdp(program)
    }
}

impl Backend for Kernel {
    fn enforced(&mut self) -> Result<Image, Error> {
        self.maps.image()
    }

    fn mend(&mut self) -> Result<Vec<Mended>, Error> {
        self.maps.mend()
    }

    fn settings(&mut self) -> Result<Settings, Error> {
        self.maps.settings()
    }

    /// A change counts as made when its system call succeeded; settings are read back besides.
    fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        self.maps.apply(changes)
    }

    fn apply_at_once(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        self.maps.apply_at_once(changes)
    }

    fn room(&self, list: List) -> Option<Room> {
        Some(self.maps.room(list))
    }

    fn live(&mut self, boot_ns: u64) -> Result<[usize; 3], Error> {
        self.maps.live(boot_ns)
    }

    fn rules(&mut self, list: List, nets: &[IpNet]) -> Result<Vec<Option<Rule>>, Error> {
        self.maps.rules(list, nets)
    }

    fn lookup(&mut self, addr: IpAddr) -> Result<Found, Error> {
        self.maps.lookup(addr.to_canonical())
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        self.maps.counters()
    }

    fn cookies(&mut self, xdp: &model::Xdp) -> Ability {
        self.prepare_cookies(xdp)
    }

    fn answered_ns(&mut self) -> Result<u64, Error> {
        self.maps.answered_ns()
    }

    fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attachment, Error> {
        self.attach_to(interface, mode)
    }

    fn interface(&mut self, interface: &str) -> Result<Attachment, Error> {
        self.state(interface)
    }

    fn interfaces(&mut self) -> Result<Vec<Attachment>, Error> {
        self.attachments()
    }

    fn release(&mut self, interface: &str) -> Result<(), Error> {
        self.take_off(interface)
    }

    fn detach(&mut self) -> Result<(), Error> {
        attach::remove_all(&self.dir)?;
        for said in self.sysctls.restore() {
            tracing::info!("{said}");
        }
        Ok(())
    }
}

/// Where this version of the ABI is pinned.
fn versioned(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}"))
}

fn xdp(program: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let missing = || Error::Load {
        operation: "reading the object".into(),
        detail: "it has no XDP program".into(),
    };
    let program = program.program_mut(names::PROGRAM).ok_or_else(missing)?;
    program.try_into().map_err(|_| missing())
}
