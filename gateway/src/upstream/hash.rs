//! Hashes that decide where a request goes. Not keyed: all workers, and all gateways of one configuration, must agree.

use crate::config::model::HashBy;
use http::HeaderMap;
use std::net::IpAddr;

use super::sticky::cookie;

/// What a request is told apart by, as a number; `None` if it does not carry it.
#[must_use]
pub fn key(by: &HashBy, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
    match by {
        HashBy::Header(name) => headers.get(name).map(|value| text(value.as_bytes())),
        HashBy::Cookie(name) => cookie(headers, name).map(|value| text(value.as_bytes())),
        HashBy::ClientIp => Some(match client {
            IpAddr::V4(ip) => text(&ip.octets()),
            IpAddr::V6(ip) => text(&ip.octets()),
        }),
    }
}

/// FNV-1a, mixed once more.
pub(super) fn text(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finisher of SplitMix64: every bit of the number changes about half of the result's.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An even draw from above 0 to 1, made of a key and a place.
pub(super) fn draw(key: u64, place: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    let bits = ((mix(key ^ place) >> 11) + 1) as f64;
    bits / 9_007_199_254_740_992.0
}
