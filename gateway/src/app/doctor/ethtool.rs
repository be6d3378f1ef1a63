//! What a driver says of its device, asked by the ioctls of `linux/ethtool.h`: they see the network namespace of this
//! process, which /sys need not.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketType};

const SIOCGIFMTU: libc::Ioctl = 0x8921;
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GDRVINFO: u32 = 0x3;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const GCHANNELS: u32 = 0x3c;
/// `ETH_SS_FEATURES`, and the length of each string.
const FEATURES: u32 = 4;
const STRING: usize = 32;
/// More features than any kernel has: a garbled answer must not take memory.
const MOST: usize = 1024;

/// `struct ifreq`, with the members that are used here in one place.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: u64,
    _rest: [u64; 2],
}

/// A device that can be asked.
#[derive(Debug)]
pub struct Device {
    socket: std::os::fd::OwnedFd,
    name: [u8; 16],
}

/// Queues that packets arrive in, now and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    pub now: u32,
    pub most: u32,
}

impl Device {
    pub fn open(interface: &str) -> io::Result<Self> {
        let mut name = [0; 16];
        let bytes = interface.as_bytes();
        if bytes.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        name[..bytes.len()].copy_from_slice(bytes);
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(Self { socket, name })
    }

    pub fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request(0);
        // SAFETY: a `struct ifreq` of full length, which the kernel fills in.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGIFMTU, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // The first four bytes of the union, in the processor's order.
        let bytes = request.value.to_ne_bytes();
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn driver(&self) -> io::Result<String> {
        let mut info = [0_u32; 49];
        info[0] = GDRVINFO;
        self.ask(&mut info)?;
        let bytes: Vec<u8> = info[1..9].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(text(&bytes))
    }

    pub fn channels(&self) -> io::Result<Channels> {
        let mut info = [0_u32; 9];
        info[0] = GCHANNELS;
        self.ask(&mut info)?;
        let [_, max_rx, _, _, max_combined, rx, _, _, combined] = info;
        Ok(Channels {
            now: rx + combined,
            most: max_rx.max(max_combined),
        })
    }

    /// Those of `wanted` that are on.
    pub fn active(&self, wanted: &[&'static str]) -> io::Result<Vec<&'static str>> {
        // Command, reserved, a mask of sets in two words, and the length of the one set.
        let mut sets = [GSSET_INFO, 0, 0, 0, 0];
        let mask = (1_u64 << FEATURES).to_ne_bytes();
        sets[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
        sets[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
        self.ask(&mut sets)?;
        let count = sets[4] as usize;
        if count == 0 || count > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut strings = vec![0; 3 + count * STRING / 4];
        strings[..3].copy_from_slice(&[GSTRINGS, FEATURES, sets[4]]);
        self.ask(&mut strings)?;
        let blocks = count.div_ceil(32);
        let mut features = vec![0; 2 + blocks * 4];
        features[..2].copy_from_slice(&[GFEATURES, blocks as u32]);
        self.ask(&mut features)?;
        let names: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let on = |index: usize| features[2 + index / 32 * 4 + 2] >> (index % 32) & 1 == 1;
        let named = names.chunks_exact(STRING).enumerate();
        let active: Vec<String> = named
            .filter(|(at, _)| on(*at))
            .map(|(_, name)| text(name))
            .collect();
        Ok(wanted
            .iter()
            .filter(|name| active.iter().any(|active| active == *name))
            .copied()
            .collect())
    }

    fn request(&self, value: u64) -> Request {
        Request {
            name: self.name,
            value,
            _rest: [0; 2],
        }
    }

    /// `command` begins with its number and is as long as the kernel's answer to it.
    fn ask(&self, command: &mut [u32]) -> io::Result<()> {
        let mut request = self.request(command.as_mut_ptr() as u64);
        // SAFETY: a `struct ifreq` of full length; the buffer it points to outlives the call and is as long as the
        // answer to its command, whose variable part it states.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_answers() {
        let device = Device::open("lo").expect("a socket");
        assert!(device.mtu().expect("an MTU") >= 1_280);
        // It has features and no driver to speak of.
        let active = device.active(&["rx-lro", "tx-generic-segmentation", "no-such-feature"]);
        let active = active.expect("features");
        assert!(
            !active.contains(&"no-such-feature") && !active.contains(&"rx-lro"),
            "{active:?}"
        );
        assert!(Device::open("a-name-that-is-much-too-long").is_err());
        assert!(Device::open("none0").expect("a socket").mtu().is_err());
    }
}
