//! What SYN cookies need of this host: the second program, two sysctls, and what its own sockets would answer.
//!
//! All of it is asked in the network namespace of this process, where its listeners are.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use aya::maps::{Map, ProgramArray};
use aya::programs::Xdp;
use gateway_common::tables::names;

use super::error::load_failed;
use super::netlink::interface;
use super::{Kernel, tables};
use crate::config::model::{self, SynCookies};
use crate::dataplane::Error;
use crate::dataplane::cookies::{Ability, Facts, PROBE, wanted};

/// The listener takes cookies although its queue is not full.
const SYNCOOKIES: (&str, &str) = ("tcp_syncookies", "2");
/// Timestamps without a secret offset, which a program can not know.
const TIMESTAMPS: (&str, &str) = ("tcp_timestamps", "2");
/// `TCPI_OPT_WSCALE` of `linux/tcp.h`.
const WINDOW_SCALING: u8 = 4;
/// Headers of IPv4 and TCP, and of IPv6 and TCP.
const HEADERS: (u32, u32) = (40, 60);
/// What every link of the Internet takes (RFC 8200, 5).
const LEAST_MTU: u32 = 1280;

impl Kernel {
    /// Makes ready for cookies if they are asked for. Whatever is in the way is told and no failure: limits go on without.
    pub(super) fn prepare_cookies(&mut self, xdp: &model::Xdp) -> Ability {
        let cookies = xdp.syn_cookies.as_ref().filter(|_| wanted(xdp));
        if self.program.is_none() {
            return cookies.map_or(Ability::NotAsked, |_| Ability::Unknown);
        }
        let Some(cookies) = cookies else {
            for said in self.sysctls.restore() {
                tracing::info!("{said}");
            }
            return Ability::NotAsked;
        };
        let unable = |why: String| {
            tracing::warn!(%why, "SYNs are not answered by cookies; the limits hold without");
            Ability::Unable { why }
        };
        if let Err(error) = self.load_cookies() {
            return unable(format!(
                "the kernel does not take the program that answers (it needs Linux 6.0): {error}"
            ));
        }
        if let Err(why) = self.sysctl(SYNCOOKIES, cookies) {
            return unable(format!("without it listeners take no cookies: {why}"));
        }
        let scale = self.sysctl(TIMESTAMPS, cookies).and_then(|()| {
            window_scale().map_err(|error| format!("the window scale could not be found out: {error}"))
        });
        let (window_scale, note) = match scale {
            Ok(scale) => (Some(scale), None),
            Err(why) => (
                None,
                Some(format!("cookies carry no window scale and no SACK: {why}")),
            ),
        };
        if let Some(note) = &note {
            tracing::warn!("{note}");
        }
        let mtus = xdp.interfaces.iter().filter_map(|name| interface(name).ok()?.mtu);
        let mtu = mtus.min().unwrap_or(LEAST_MTU).max(LEAST_MTU);
        let size = |headers| u16::try_from(mtu - headers).unwrap_or(u16::MAX);
        Ability::Able(Facts {
            window_scale,
            note,
            mss4: size(HEADERS.0),
            mss6: size(HEADERS.1),
        })
    }

    /// Sees to it that a sysctl has a value, or says what to do.
    fn sysctl(&self, (name, value): (&str, &str), cookies: &SynCookies) -> Result<(), String> {
        let now = self.sysctls.get(name);
        let now = now.map_err(|error| format!("net.ipv4.{name} can not be read: {error}"))?;
        if now == value {
            return Ok(());
        }
        let advice = format!("run `sysctl -w net.ipv4.{name}={value}`");
        if !cookies.set_sysctls {
            return Err(format!(
                "net.ipv4.{name} is {now} and xdp.syn_cookies.set_sysctls is false; {advice}"
            ));
        }
        self.sysctls
            .set(name, &now, value)
            .map_err(|error| format!("net.ipv4.{name} is {now} and could not be set ({error}); {advice}"))?;
        tracing::info!(
            from = now,
            to = value,
            "set net.ipv4.{name} for SYN cookies, until they are no longer wanted"
        );
        Ok(())
    }

    /// Loads the second program and puts it where the first one looks for it.
    fn load_cookies(&mut self) -> Result<(), Error> {
        let slot = tables::pinned(&self.dir, names::COOKIES)?;
        let failed =
            |e: &(dyn std::error::Error + 'static)| load_failed("loading the program that answers", e);
        let program = self
            .program
            .as_mut()
            .and_then(|all| all.program_mut(names::COOKIE_PROGRAM));
        let program: &mut Xdp = match program.map(TryInto::try_into) {
            Some(Ok(program)) => program,
            _ => {
                return Err(Error::Load {
                    operation: "reading the object".into(),
                    detail: "it has no program that answers".into(),
                });
            }
        };
        if program.fd().is_err() {
            program.load().map_err(|e| failed(&e))?;
        }
        let map = Map::from_map_data(slot).map_err(|e| failed(&e))?;
        let mut slot = ProgramArray::try_from(map).map_err(|e| failed(&e))?;
        let fd = program.fd().map_err(|e| failed(&e))?;
        slot.set(0, fd, 0).map_err(|e| failed(&e))
    }
}

/// The window scale that listeners of this host answer, from one that did.
fn window_scale() -> io::Result<u8> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _client = TcpStream::connect_timeout(&listener.local_addr()?, PROBE)?;
    let (accepted, _) = listener.accept()?;
    let info = info(&accepted)?;
    if info.tcpi_options & WINDOW_SCALING == 0 {
        return Err(io::Error::other("net.ipv4.tcp_window_scaling is off"));
    }
    // Two fields of four bits: ours is the second.
    let both = info.tcpi_snd_rcv_wscale;
    Ok(if cfg!(target_endian = "little") {
        both >> 4
    } else {
        both & 0xf
    })
}

fn info(socket: &TcpStream) -> io::Result<libc::tcp_info> {
    // SAFETY: integers only, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the structure has the length that is stated, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(info)
    } else {
        Err(io::Error::last_os_error())
    }
}
