//! Values with a unit: durations, sizes, rates, factors, networks.
//!
//! Owns how they are read and written; the command line reads the same forms. Knows no setting. A bare number is
//! refused where a unit is missing: `timeout: 10` means seconds to one reader and milliseconds to the next.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::fault::{Wrong, quote};
use super::model::Rate;

/// A unit and what it is worth.
type Unit = (&'static str, u64);

/// In milliseconds, largest first.
const TIMES: &[Unit] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// In bytes, largest first, so that a size is written with the unit that divides it.
const SIZES: &[Unit] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// In seconds.
const RATE_TIMES: &[Unit] = &[("s", 1), ("m", 60), ("h", 3_600)];

/// `250ms`, `10s`, `1m`, `2h`, `1d`. Whole numbers; zero is read, and left to the setting to refuse.
///
/// # Errors
/// Anything else, or more than `u64` milliseconds.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    with_unit(text, TIMES, "a duration", ("10", "s")).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `10MiB`, `1GiB`, and the decimal `1kB`, `1MB`, `1GB`.
///
/// # Errors
/// Anything else, or more than `u64` bytes.
pub fn size(text: &str) -> Result<u64, Wrong> {
    with_unit(text, SIZES, "a size", ("65536", "B"))
}

/// `100/s`, `10/m`, `5/h`. At least 1, at most `u32::MAX`.
///
/// # Errors
/// Anything else.
pub fn rate(text: &str) -> Result<Rate, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a rate", quote(text)));
    let Some((count, per)) = text.split_once('/') else {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let example = if digits && text.len() <= 10 { text } else { "100" };
        return Err(refuse().hint(format!("write {example}/s, {example}/m or {example}/h")));
    };
    let Some(&(_, seconds)) = RATE_TIMES.iter().find(|(name, _)| *name == per) else {
        return Err(refuse().hint("the unit of time is s, m or h"));
    };
    let count = digits(count)
        .and_then(|n| u32::try_from(n).ok())
        .and_then(NonZeroU32::new);
    let count = count.ok_or_else(|| refuse().hint("the number is a whole one from 1 to 4294967295"))?;
    Ok(Rate {
        count,
        per: Duration::from_secs(seconds),
    })
}

/// `4x`, `1.5x`: a factor in hundredths, `4x` being 400. At most two decimals.
///
/// # Errors
/// Anything else.
pub fn factor(text: &str) -> Result<u32, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a factor", quote(text))).hint("write it as 2x or 1.5x");
    let number = text.strip_suffix('x').ok_or_else(refuse)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.len() > 2 {
        return Err(Wrong::new(format!("{} is too exact", quote(text))).hint("two decimals at most"));
    }
    let tenths = if part.len() == 1 { 10 } else { 1 };
    let whole = digits(whole).ok_or_else(refuse)?;
    let part = digits(part).ok_or_else(refuse)? * tenths;
    let hundredths = whole.checked_mul(100).and_then(|n| n.checked_add(part));
    hundredths.and_then(|n| u32::try_from(n).ok()).ok_or_else(refuse)
}

/// A network in CIDR form, or a single address.
///
/// An IPv4-mapped IPv6 network (`::ffff:192.0.2.0/120`) is the IPv4 network it means, since packets never carry it.
///
/// # Errors
/// Not an address, a length out of range, or bits set beyond the length: `10.0.0.1/8` is one of two different
/// mistakes, and only its writer knows which.
pub fn network(text: &str) -> Result<IpNet, Wrong> {
    let (addr, len) = match text.split_once('/') {
        None => (text, None),
        Some((addr, len)) => (addr, Some(len)),
    };
    let refuse = || Wrong::new(format!("{} is not an address or network", quote(text)));
    let Ok(addr) = addr.parse::<IpAddr>() else {
        let hint = if addr.contains('%') {
            "an address with a zone can not be filtered by; leave the %zone out"
        } else {
            "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
        };
        return Err(refuse().hint(hint));
    };
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => most,
        Some(len) => match digits(len).and_then(|n| u8::try_from(n).ok()) {
            Some(len) if len <= most => len,
            _ => return Err(refuse().hint(format!("the length after the / is a number from 0 to {most}"))),
        },
    };
    let net = unmapped(IpNet::new(addr, len).map_err(|_| refuse())?);
    if net.addr() == net.network() {
        return Ok(net);
    }
    let (short, host) = (net.trunc(), IpNet::from(net.addr()));
    let hint = format!(
        "write {short} for the whole network, or {} for the one address",
        plain(host)
    );
    Err(Wrong::new(format!("{} has bits set beyond its length", quote(text))).hint(hint))
}

/// The IPv4 network that a mapped one means; others as they are.
fn unmapped(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
}

/// Whether this is every address of its family.
#[must_use]
pub fn is_everything(net: &IpNet) -> bool {
    net.prefix_len() == 0
}

/// A network as people write it: a single address without its length.
#[must_use]
pub fn plain(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// A duration in the largest unit that keeps it whole: the inverse of [`duration`] down to the millisecond.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        TIMES,
        "0s",
    )
}

/// A size in the largest unit that keeps it whole: the inverse of [`size`].
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, SIZES, "0B")
}

/// A rate as it is read by [`rate`], if its time is a second, a minute or an hour.
#[must_use]
pub fn show_rate(rate: Rate) -> String {
    let unit = RATE_TIMES
        .iter()
        .find(|(_, seconds)| rate.per == Duration::from_secs(*seconds));
    unit.map_or_else(
        || format!("{}/{}", rate.count, show_duration(rate.per)),
        |(name, _)| format!("{}/{name}", rate.count),
    )
}

fn show(value: u64, units: &[Unit], zero: &str) -> String {
    let unit = units
        .iter()
        .find(|(_, worth)| value != 0 && value.is_multiple_of(*worth));
    unit.map_or_else(
        || zero.to_owned(),
        |(name, worth)| format!("{}{name}", value / worth),
    )
}

/// `example` is a number and its unit; the unit is the one that a bare number most likely meant.
fn with_unit(text: &str, units: &[Unit], what: &str, example: (&str, &str)) -> Result<u64, Wrong> {
    let refuse = || Wrong::new(format!("{} is not {what}", quote(text)));
    let names = || {
        units
            .iter()
            .rev()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (example, likely) = example;
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    if number.is_empty() {
        return Err(refuse().hint(format!(
            "write a whole number and a unit, such as {example}{likely}"
        )));
    }
    if unit.is_empty() {
        let number = if number.len() <= 12 { number } else { example };
        let wrong = Wrong::new(format!("{} has no unit", quote(text)));
        return Err(wrong.hint(format!("write {number}{likely}, or another of {}", names())));
    }
    let Some((_, worth)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(refuse().hint(format!("{} is not one of the units {}", quote(unit), names())));
    };
    let value = digits(number).and_then(|n| n.checked_mul(*worth));
    value.ok_or_else(|| refuse().hint("the number is too large"))
}

/// A whole number of ASCII digits and nothing else; no sign, no blank.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_unit_is_worth_what_it_says() {
        let read = |text| duration(text).expect(text).as_millis();
        assert_eq!(
            ["250ms", "10s", "1m", "2h", "1d"].map(read),
            [250, 10_000, 60_000, 7_200_000, 86_400_000]
        );
        let read = |text| size(text).expect(text);
        assert_eq!(
            ["512B", "64KiB", "10MiB", "1MB", "1kB", "1GiB"].map(read),
            [512, 65_536, 10_485_760, 1_000_000, 1_000, 1_073_741_824]
        );
        assert_eq!(
            ["4x", "1.5x", "1.25x", "0.05x"].map(|text| factor(text).expect(text)),
            [400, 150, 125, 5]
        );
        let read = |text| {
            rate(text)
                .map(|rate| (rate.count.get(), rate.per.as_secs()))
                .expect(text)
        };
        assert_eq!(
            ["100/s", "10/m", "5/h"].map(read),
            [(100, 1), (10, 60), (5, 3600)]
        );
    }

    #[test]
    fn a_bare_number_is_told_its_likely_unit() {
        let told = |wrong: Result<_, Wrong>| wrong.expect_err("no unit").to_string();
        assert_eq!(
            told(duration("10").map(drop)),
            "\"10\" has no unit; write 10s, or another of ms, s, m, h, d"
        );
        assert!(told(size("1500").map(drop)).contains("write 1500B"));
        assert!(told(rate("100").map(drop)).contains("write 100/s"));
        assert!(told(factor("4").map(drop)).contains("2x"));
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1 s",
            "1.5s",
            "1S",
            "1min",
            "1h30m",
            "٣s",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "B", "1K", "1kib", "1 MiB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["0/s", "/s", "1/", "1/d", "-1/s", "4294967296/s", "1/s/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in [
            "x",
            ".5x",
            "1.x",
            "1.234x",
            "4X",
            "99999999999999999999x",
            "42949673x",
        ] {
            assert!(factor(text).is_err(), "{text}");
        }
        for text in [
            "",
            "/8",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "01.2.3.4",
            "1.2.3.4 ",
            "::1/129",
            "::1%lo",
            "a",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        let read = |text| network(text).expect(text).to_string();
        assert_eq!(read("::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(read("::ffff:192.0.2.0/120"), "192.0.2.0/24");
        assert_eq!(read("::ffff:0:0/96"), "0.0.0.0/0");
        assert_eq!(read("::/0"), "::/0");
        assert!(
            network("::ffff:192.0.2.7/120").is_err(),
            "bits beyond the length count in either spelling"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0..=u64::MAX / 86_400_000, bytes: u64, count in 1..=u32::MAX) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            for (_, seconds) in RATE_TIMES {
                let one = Rate { count: NonZeroU32::new(count).expect("from 1"), per: Duration::from_secs(*seconds) };
                prop_assert_eq!(rate(&show_rate(one)), Ok(one));
            }
        }

        #[test]
        fn networks_round_trip(bits: u128, len in 0..=128_u8, v4: u32, len4 in 0..=32_u8) {
            let v6 = unmapped(IpNet::new(std::net::Ipv6Addr::from_bits(bits).into(), len).expect("a length").trunc());
            let v4 = IpNet::new(std::net::Ipv4Addr::from_bits(v4).into(), len4).expect("a length").trunc();
            for net in [v4, v6] {
                prop_assert_eq!(network(&net.to_string()), Ok(net));
                prop_assert_eq!(network(&plain(net)), Ok(net));
            }
        }

        #[test]
        fn no_text_makes_a_panic(text in "\\PC{0,24}", near in "[0-9./:xa-fsmhdKMGiB%]{0,24}") {
            for text in [text, near] {
                let _ = (duration(&text), size(&text), rate(&text), factor(&text), network(&text));
            }
        }
    }
}
