//! The records of `utmp`: who is logged in, as `struct utmp` of `utmp.h` lays it out on all 64-bit Linux.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RECORD: usize = 384;
/// `USER_PROCESS`.
const LOGGED_IN: i16 = 7;
const PID: usize = 4;
const ADDRESS: usize = 348;

/// The remote addresses of those who are logged in; `alive` says whether the session's process still runs.
pub fn clients(records: &[u8], alive: impl Fn(u32) -> bool) -> Vec<IpAddr> {
    records
        .chunks_exact(RECORD)
        .filter_map(|record| {
            let kind = i16::from_ne_bytes(record.get(..2)?.try_into().ok()?);
            let pid = u32::from_ne_bytes(record.get(PID..PID + 4)?.try_into().ok()?);
            let addr: [u8; 16] = record.get(ADDRESS..ADDRESS + 16)?.try_into().ok()?;
            (kind == LOGGED_IN && alive(pid)).then(|| address(addr))?
        })
        .collect()
}

/// IPv4 stands in the first word alone.
fn address(bytes: [u8; 16]) -> Option<IpAddr> {
    if bytes == [0; 16] {
        None
    } else if bytes[4..] == [0; 12] {
        Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into())
    } else {
        Some(Ipv6Addr::from(bytes).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, pid: u32, addr: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[PID..PID + 4].copy_from_slice(&pid.to_ne_bytes());
        record[ADDRESS..ADDRESS + addr.len()].copy_from_slice(addr);
        record
    }

    #[test]
    fn live_logins_from_elsewhere_count() {
        let v6 = "2001:db8::9".parse::<Ipv6Addr>().expect("an address");
        let records = [
            record(LOGGED_IN, 1, &[192, 0, 2, 9]),
            record(LOGGED_IN, 1, &v6.octets()),
            record(LOGGED_IN, 2, &[192, 0, 2, 10]),
            record(8, 1, &[192, 0, 2, 11]),
            record(LOGGED_IN, 1, &[]),
            vec![7; 100],
        ]
        .concat();
        let found = clients(&records, |pid| pid == 1);
        assert_eq!(found, [IpAddr::from([192, 0, 2, 9]), v6.into()]);
    }
}
