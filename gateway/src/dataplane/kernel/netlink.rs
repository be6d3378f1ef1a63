//! One question to the kernel over rtnetlink: which index has this interface, and which XDP program?
//!
//! By name and over a socket, since `/sys/class/net` may show another network namespace than ours.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::error::at;
use crate::dataplane::Error;

/// What is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub xdp: Option<Attached>,
    /// Longest packet it takes; `None` if the kernel does not say.
    pub mtu: Option<u32>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub program: u32,
    /// Run by the driver rather than by the network stack.
    pub native: bool,
}

// Numbers of `linux/netlink.h`, `linux/rtnetlink.h` and `linux/if_link.h`.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
/// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
const TYPE_MASK: u16 = 0x3fff;
/// `struct nlmsghdr` and `struct ifinfomsg`, in bytes.
const HEADER: usize = 16;
const IFINFO: usize = 16;
/// `IFNAMSIZ`, its zero byte included.
const NAME_MAX: usize = 16;

/// Asks about the interface `name` in this network namespace.
pub fn interface(name: &str) -> Result<Interface, Error> {
    let missing = || Error::NoInterface {
        interface: name.to_owned(),
    };
    if name.is_empty() || name.len() >= NAME_MAX || name.contains('\0') {
        return Err(missing());
    }
    let operation = format!("asking for interface {name}");
    let answer = ask(&request(name)).map_err(|e| at(operation.clone())(e.into()))?;
    match read(&answer) {
        Ok(interface) => Ok(interface),
        Err(Refused::Errno(code)) if code == libc::ENODEV => Err(missing()),
        Err(Refused::Errno(code)) => Err(at(operation)(std::io::Error::from_raw_os_error(code))),
        Err(Refused::Garbled) => Err(Error::Load {
            operation,
            detail: "the kernel's answer is garbled".into(),
        }),
    }
}

fn ask(request: &[u8]) -> rustix::io::Result<Vec<u8>> {
    // Protocol zero is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&socket, request, SendFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

fn request(name: &str) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + NAME_MAX);
    attribute.extend((4 + name.len() as u16 + 1).to_ne_bytes());
    attribute.extend(IFLA_IFNAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);

    let mut message = Vec::with_capacity(HEADER + IFINFO + attribute.len());
    message.extend(((HEADER + IFINFO + attribute.len()) as u32).to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.resize(HEADER + IFINFO, 0);
    message.extend(attribute);
    message
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Errno(i32),
    Garbled,
}

fn read(answer: &[u8]) -> Result<Interface, Refused> {
    let word = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let kind = answer
        .get(4..6)
        .and_then(|b| b.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or(Refused::Garbled)?;
    match kind {
        NLMSG_ERROR => {
            let code = word(HEADER).ok_or(Refused::Garbled)? as i32;
            return Err(Refused::Errno(code.wrapping_neg()));
        }
        RTM_NEWLINK => {}
        _ => return Err(Refused::Garbled),
    }
    let index = word(HEADER + 4).ok_or(Refused::Garbled)?;
    let attributes = answer.get(HEADER + IFINFO..).ok_or(Refused::Garbled)?;
    let xdp = attribute(attributes, IFLA_XDP).and_then(|nested| {
        let program = attribute(nested, IFLA_XDP_PROG_ID)?
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)?;
        let mode = *attribute(nested, IFLA_XDP_ATTACHED)?.first()?;
        Some(Attached {
            program,
            native: mode != XDP_ATTACHED_SKB,
        })
    });
    let mtu = attribute(attributes, IFLA_MTU).and_then(|mtu| mtu.try_into().ok().map(u32::from_ne_bytes));
    Ok(Interface { index, xdp, mtu })
}

/// The payload of the first attribute of a kind.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let payload = rest.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_answers_without_privileges() {
        let interface = interface("lo").expect("every namespace has one");
        assert!(interface.index > 0);
        assert!(interface.mtu.is_some_and(|mtu| mtu >= 1280));
    }

    #[test]
    fn unknown_and_impossible_names_are_missing() {
        for name in ["", "no-such-if", "a-name-of-sixteen", "lo\0"] {
            assert!(
                matches!(super::interface(name), Err(Error::NoInterface { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_garbled_answer_is_an_error_at_every_length() {
        let answer = ask(&request("lo")).expect("netlink");
        assert!(read(&answer).is_ok());
        for length in 0..HEADER + IFINFO {
            assert_eq!(read(&answer[..length]), Err(Refused::Garbled), "cut at {length}");
        }
        for length in HEADER + IFINFO..answer.len() {
            let _ = read(&answer[..length]);
        }
        assert_eq!(
            attribute(&[0, 0, 0, 0, 0, 0, 0, 0], 7),
            None,
            "a length of zero must not loop"
        );
    }
}
