//! System calls that aya has no words for: mounting bpffs, link details, the clock, the memory limit.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};

use super::error::at;
use crate::dataplane::Error;

/// Where distributions mount bpffs.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Sees to it that `pin_dir` is, or will be, on bpffs; mounts it at its usual place if that is where it is missing.
pub fn ensure_bpffs(pin_dir: &Path) -> Result<(), Error> {
    if on_bpffs(pin_dir) {
        return Ok(());
    }
    if pin_dir.starts_with(BPFFS) {
        let operation = format!("mounting bpffs on {BPFFS}");
        rustix::mount::mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)
            .map_err(|e| at(operation)(e.into()))?;
        tracing::info!("mounted bpffs on {BPFFS}");
        return Ok(());
    }
    let operation = format!("pinning under {}", pin_dir.display());
    let detail = format!("it is not on bpffs: `mount -t bpf bpf <dir>`, or choose a directory below {BPFFS}");
    Err(Error::Load { operation, detail })
}

/// By the nearest ancestor that exists.
fn on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| rustix::fs::statfs(path).ok())
        .is_some_and(|fs| fs.f_type as u64 == BPFFS_MAGIC)
}

/// Kernels before 5.11 count BPF memory against this limit; later ones do not, so a refusal is no failure.
pub fn lift_memory_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the locked-memory limit stays; kernels since 5.11 do not apply it to BPF");
    }
}

/// What the kernel says of an XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub program: u32,
    /// Zero once the interface is gone.
    pub ifindex: u32,
}

/// An XDP link opened from its pin.
#[derive(Debug)]
pub struct Link(OwnedFd);

// Commands of bpf(2), `enum bpf_cmd` of `linux/bpf.h`.
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_DETACH: libc::c_int = 34;

/// The part of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info` with its `xdp` member.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _pad: u32,
    ifindex: u32,
    _rest: [u32; 11],
}

/// `BPF_LINK_TYPE_XDP`.
const LINK_TYPE_XDP: u32 = 6;

impl Link {
    /// Opens the pin at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = ObjGet {
            pathname: path.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        };
        // SAFETY: `attr` is a `bpf_attr` of this command, and the path it points to outlives the call.
        let fd = unsafe { bpf(OBJ_GET, &mut attr) }?;
        // SAFETY: the kernel just gave this descriptor to us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Fails with `InvalidData` if the pin is no XDP link.
    pub fn info(&self) -> io::Result<LinkInfo> {
        let mut info = RawLinkInfo::default();
        let mut attr = GetInfo {
            bpf_fd: self.0.as_raw_fd().unsigned_abs(),
            info_len: size_of::<RawLinkInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        // SAFETY: `attr` is a `bpf_attr` of this command, and `info` has the length it states.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
        if info.kind != LINK_TYPE_XDP {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not an XDP link"));
        }
        Ok(LinkInfo {
            program: info.program,
            ifindex: info.ifindex,
        })
    }

    /// Takes the program off its interface at once; closing the last descriptor would do it some time later.
    pub fn detach(self) -> io::Result<()> {
        let mut attr = [self.0.as_raw_fd().unsigned_abs(), 0];
        // SAFETY: `attr` is a `bpf_attr` of this command: the link's descriptor.
        unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
    }
}

/// Waits until every program that is running now has ended: a packet that looked up which half of a table is live before
/// that was changed has left the other one.
///
/// Programs run as readers of RCU, and this command of membarrier(2) is a grace period of it. A kernel that keeps
/// processors free of its timer (`nohz_full`) refuses it; then so long is waited as no run of a program takes.
pub fn await_programs() {
    // SAFETY: the call takes three numbers and no address.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One call of bpf(2).
///
/// # Safety
/// `attr` must be what `command` expects, and every address in it valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the size is that of `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as libc::c_int)
    }
}
