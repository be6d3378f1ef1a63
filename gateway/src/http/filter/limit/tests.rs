use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use http::Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::model::{KeyPart, Rate};
use crate::http::client::{Client, ClientAddr};
use crate::http::filter::Identity;

fn exchange(ip: &str) -> Exchange {
    Exchange::new(Client {
        socket: ClientAddr::of_socket(ip.parse().unwrap()),
        forwarded: None,
    })
}

fn head(lines: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("/");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn by(parts: &[KeyPart]) -> LimitKey {
    LimitKey {
        parts: parts.to_vec(),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    }
}

fn text(key: &LimitKey, exchange: &Exchange, head: &Parts) -> Vec<u8> {
    let mut text = Vec::new();
    key::feed(key, "route", exchange, head, &mut |bytes| {
        text.extend_from_slice(bytes)
    });
    text
}

#[test]
fn t42_an_ipv6_client_is_its_network() {
    let key = by(&[KeyPart::ClientIp]);
    let of = |ip| text(&key, &exchange(ip), &head(&[]));
    assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
    assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(
        of("::ffff:192.0.2.1"),
        of("192.0.2.1"),
        "one client, however it connects"
    );
    let wide = LimitKey {
        ipv4_prefix: 24,
        ipv6_prefix: 48,
        ..key
    };
    let of = |ip| text(&wide, &exchange(ip), &head(&[]));
    assert_eq!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
}

#[test]
fn callers_are_told_apart_by_each_part_and_by_where_it_ends() {
    let header = |name: &'static str| KeyPart::Header(HeaderName::from_static(name));
    let key = by(&[
        header("x-a"),
        header("x-b"),
        KeyPart::Cookie("c".into()),
        KeyPart::Claim("sub".into()),
        KeyPart::Identity,
    ]);
    let nobody = exchange("192.0.2.1");
    let mut known = exchange("192.0.2.1");
    known.identity = Some(Arc::new(Identity::named("n")));
    let mut claimed = exchange("192.0.2.1");
    let mut who = Identity::named("n");
    who.claims.insert("sub".into(), json!("s"));
    claimed.identity = Some(Arc::new(who));
    let all = [
        text(&key, &nobody, &head(&[])),
        text(&key, &nobody, &head(&[("x-a", "")])),
        text(&key, &nobody, &head(&[("x-a", "1"), ("x-b", "2")])),
        text(&key, &nobody, &head(&[("x-a", "12"), ("x-b", "")])),
        text(&key, &nobody, &head(&[("x-a", ""), ("x-b", "12")])),
        text(&key, &nobody, &head(&[("x-a", "1"), ("x-a", "2"), ("x-b", "")])),
        text(&key, &nobody, &head(&[("cookie", "c=1")])),
        text(&key, &nobody, &head(&[("cookie", "c=")])),
        text(&key, &known, &head(&[])),
        text(&key, &claimed, &head(&[])),
    ];
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

proptest! {
    /// In no window of any length is more admitted than the burst and what the rate gives in it.
    #[test]
    fn a_rate_holds_in_every_window(
        pauses in proptest::collection::vec(0..3_000_000_u64, 1..300),
        count in 1..5_000_u32,
        burst in 1..50_u32,
    ) {
        let rate = Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(1) };
        let limit = Gcra::new(rate, burst);
        let (mut tat, mut now, mut admitted) = (0, 0_u64, Vec::new());
        for pause in pauses {
            now += pause;
            let (next, verdict) = limit.decide(tat.max(now), now);
            tat = next;
            if verdict.admitted {
                admitted.push(now);
                prop_assert_eq!(verdict.wait, 0);
            } else {
                let (_, then) = limit.decide(tat.max(now + verdict.wait), now + verdict.wait);
                prop_assert!(then.admitted, "who waits as long as told is let in");
                let (_, early) = limit.decide(tat.max(now + verdict.wait - 1), now + verdict.wait - 1);
                prop_assert!(!early.admitted, "and not before");
            }
        }
        for (i, from) in admitted.iter().enumerate() {
            for (n, to) in admitted[i..].iter().enumerate() {
                let granted = u128::from(burst) * 1_000_000_000 + u128::from(to - from) * u128::from(count);
                prop_assert!((n as u128 + 1) * 1_000_000_000 <= granted);
            }
        }
    }
}

#[test]
fn permits_are_counted_down_however_they_go() {
    let counts = Arc::new(Counts::new(&by(&[KeyPart::ClientIp])));
    let one = counts.enter(1);
    let two = counts.enter(1);
    assert_eq!((one.1, two.1, counts.callers()), (0, 1, 1));
    drop(one);
    assert_eq!(counts.enter(1).1, 1, "and that one is gone again");
    drop(two);
    assert_eq!(counts.callers(), 0, "nothing is kept of who is not here");
}
