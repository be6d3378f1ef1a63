//! Segments with made-up sources, sent as fast as one thread can. Owns how such a segment looks; knows no gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::net::Namespace;

/// A flood; stopped when dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// From whom segments seem to come.
#[derive(Clone, Copy, Debug)]
pub enum Sources {
    /// Of 16 million addresses: 20.0.0.0/8, or 2001:db8::/104.
    MadeUp,
    One(IpAddr),
}

impl Flood {
    /// Sends segments with these TCP flags from a namespace to an address, each from the next source and port.
    pub fn start(from: &Namespace, to: SocketAddr, flags: u8, sources: Sources) -> Result<Self> {
        Self::paced(from, to, flags, sources, u32::MAX)
    }

    /// As [`Flood::start`], at most so many a second.
    pub fn paced(
        from: &Namespace,
        to: SocketAddr,
        flags: u8,
        sources: Sources,
        a_second: u32,
    ) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let socket = from.within(move || {
            let family = if to.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            socket(family, SocketType::RAW, Some(ipproto::RAW))
        })??;
        let thread = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                // What is measured beside a flood must not be how two processors are shared between it and a client.
                rustix::process::setpriority_process(None, 19)?;
                let (mut number, start) = (0_u32, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    number = number.wrapping_add(1);
                    if a_second != u32::MAX {
                        let due = Duration::from_secs_f64(f64::from(number) / f64::from(a_second));
                        std::thread::sleep(due.saturating_sub(start.elapsed()));
                    }
                    let mixed = number.wrapping_mul(0x9e37_79b1);
                    let source = match (sources, to) {
                        (Sources::One(addr), _) => addr,
                        (Sources::MadeUp, SocketAddr::V4(_)) => Ipv4Addr::from(20 << 24 | mixed >> 8).into(),
                        (Sources::MadeUp, SocketAddr::V6(_)) => {
                            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(mixed >> 8)).into()
                        }
                    };
                    let port = 1024 + (number % 60_000) as u16;
                    let packet = segment(SocketAddr::new(source, port), to, mixed, flags);
                    // A full queue of the device loses it: nobody counts on each one.
                    if sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to.ip(), 0)).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }
        });
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// Segments so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and says how many it were.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(anyhow!("the flood panicked")),
            Some(Ok(result)) => result.map(|()| self.sent()),
            None => Ok(self.sent()),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An IP packet with a bare TCP header and good checksums.
#[must_use]
pub fn segment(from: SocketAddr, to: SocketAddr, number: u32, flags: u8) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(60);
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(number.to_be_bytes());
    tcp.extend(number.rotate_left(16).to_be_bytes());
    tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let (mut packet, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let check = !fold(sum(&header));
            header[10..12].copy_from_slice(&check.to_be_bytes());
            let addresses = sum(&header[12..]);
            (header, addresses)
        }
        (from, to) => {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut header = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
            header.extend(octets(from));
            header.extend(octets(to));
            let addresses = sum(&header[8..]);
            (header, addresses)
        }
    };
    let check = !fold(addresses + 6 + 20 + sum(&tcp));
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    packet.extend(tcp);
    packet
}

/// Sum of numbers of sixteen bits (RFC 1071); an odd last byte counts as the upper half of one.
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2);
    pairs
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

/// Ones' complement of a sum, not yet inverted.
#[must_use]
pub const fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
