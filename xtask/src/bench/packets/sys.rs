//! bpf(2): loading a program, finding one by its number, running one over a frame, attaching one to a device. And wait4(2).

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::insn::Insn;
use crate::shell;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;

// Commands of bpf(2), `enum bpf_cmd` of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_PROG_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
/// `BPF_XDP`, the place that a link attaches to.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
const NATIVE: u32 = 1 << 2;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`: the action is carried out.
const LIVE_FRAMES: u32 = 1 << 1;

/// A loaded XDP program. The kernel drops it when its last holder does.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// A program on a device, until this is dropped.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`, up to the name.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// The part of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

impl Program {
    /// Loads a program; the verifier's words are in the error.
    pub fn load(name: &str, instructions: &[Insn]) -> Result<Self> {
        let mut log = vec![0u8; 1 << 16];
        let mut short = [0; 16];
        for (to, from) in short[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let mut attr = Load {
            prog_type: TYPE_XDP,
            insn_cnt: instructions.len().try_into().context("a short program")?,
            insns: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 1,
            log_size: 1 << 16,
            log_buf: log.as_mut_ptr() as u64,
            kern_version: 0,
            prog_flags: 0,
            name: short,
        };
        // SAFETY: `attr` is a `bpf_attr` of this command; program, licence and log outlive the call and have the
        // lengths it states.
        let result = unsafe { bpf(PROG_LOAD, &mut attr) };
        let fd = result.with_context(|| {
            let said = String::from_utf8_lossy(&log);
            format!("loading the program {name}: {}", said.trim_end_matches('\0'))
        })?;
        Ok(Self(fd.into_owned()))
    }

    /// A program that is in the kernel already, by its number.
    pub fn by_id(id: u32) -> Result<Self> {
        let mut attr = [id, 0, 0];
        // SAFETY: `attr` is a `bpf_attr` of this command: the number.
        let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) };
        Ok(Self(
            fd.with_context(|| format!("opening program {id}"))?.into_owned(),
        ))
    }

    /// Runs the program `repeat` times over a frame; returns the last action and the mean time of a run.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let mut frame_out = vec![0; frame.len()];
        self.run_into(frame, &mut frame_out, repeat)
    }

    /// Runs it once; returns the action and what became of the frame.
    pub fn rewrite(&self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut frame_out = vec![0; frame.len()];
        let (action, _) = self.run_into(frame, &mut frame_out, 1)?;
        Ok((action, frame_out))
    }

    fn run_into(&self, frame: &[u8], frame_out: &mut [u8], repeat: u32) -> Result<(u32, Duration)> {
        let mut attr = TestRun {
            prog_fd: self.raw(),
            data_size_in: frame.len().try_into().context("a short frame")?,
            data_size_out: frame_out.len().try_into().context("a short frame")?,
            data_in: frame.as_ptr() as u64,
            data_out: frame_out.as_mut_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: `attr` is a `bpf_attr` of this command; both frames outlive the call and have the lengths it states.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }.context("running a program over a frame")?;
        Ok((attr.retval, Duration::from_nanos(attr.duration.into())))
    }

    /// Runs it `repeat` times with frames that seem to come in at a device of this thread's network namespace, and
    /// carries out what it says. Returns early when a signal arrives.
    pub fn run_live(&self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<()> {
        let length = frame.len().try_into().context("a short frame")?;
        let context = Context {
            data_end: length,
            ingress_ifindex: ifindex,
            ..Context::default()
        };
        let mut attr = TestRun {
            prog_fd: self.raw(),
            data_size_in: length,
            data_in: frame.as_ptr() as u64,
            repeat,
            ctx_size_in: size_of::<Context>() as u32,
            ctx_in: (&raw const context) as u64,
            flags: LIVE_FRAMES,
            ..TestRun::default()
        };
        // SAFETY: `attr` is a `bpf_attr` of this command; frame and context outlive the call and have the lengths it
        // states.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }.context("sending live frames")?;
        Ok(())
    }

    /// Attaches it in native mode to a device of this thread's network namespace.
    pub fn attach(&self, ifindex: u32) -> Result<Link> {
        let mut attr = LinkCreate {
            prog_fd: self.raw(),
            target_ifindex: ifindex,
            attach_type: ATTACH_XDP,
            flags: NATIVE,
        };
        // SAFETY: `attr` is a `bpf_attr` of this command; it holds no address.
        let fd = unsafe { bpf(LINK_CREATE, &mut attr) }.context("attaching a program")?;
        Ok(Link { _fd: fd.into_owned() })
    }

    fn raw(&self) -> u32 {
        self.0.as_raw_fd().unsigned_abs()
    }
}

/// What a call returned: a descriptor where the command gives one, else zero.
struct Returned(libc::c_int);

impl Returned {
    fn into_owned(self) -> OwnedFd {
        // SAFETY: only called on what a command returned that gives a new descriptor to this process.
        unsafe { OwnedFd::from_raw_fd(self.0) }
    }
}

/// Runs a command to its end; returns what it printed, and the most memory it had resident, in KiB.
pub fn output_and_peak(command: &mut Command) -> Result<(String, u64)> {
    let shown = shell::line(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("starting {shown}"))?;
    let mut text = String::new();
    if let Some(mut said) = child.stdout.take() {
        said.read_to_string(&mut text)
            .with_context(|| format!("reading from {shown}"))?;
    }
    let pid = libc::pid_t::try_from(child.id()).context("a process id")?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: a child of ours that nobody else waits for, and room for what comes back.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(
        waited == pid,
        "waiting for {shown}: {}",
        io::Error::last_os_error()
    );
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{shown} failed"
    );
    // SAFETY: zeroed, and filled by the call.
    let usage = unsafe { usage.assume_init() };
    Ok((text, u64::try_from(usage.ru_maxrss).context("a size")?))
}

/// One call of bpf(2).
///
/// # Safety
/// `attr` must be what `command` expects, and every address in it valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<Returned> {
    // SAFETY: the caller's promise; the size is that of `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(Returned(result as libc::c_int))
    }
}
