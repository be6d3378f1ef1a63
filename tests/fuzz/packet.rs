//! Any frame through parsing and policy: neither reads past its end, and what is listed decides as it must.
#![no_main]

use std::net::IpAddr;

use gateway::dataplane::{Backend as _, Change, List, Memory};
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{Limit, Rule, Settings, feature, limit};
use gateway_ebpf::packet::{Content, Cursor, parse};
use gateway_ebpf::policy::decide;
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

fn tables(lists: &[(List, IpNet)], limited: bool) -> Memory {
    let mut memory = Memory::new([1, 2]);
    memory.now_ns = 1_000_000_000_000;
    let settings = Settings {
        features: if limited { feature::LIMITS } else { 0 },
        ready: 1,
        malformed: u32::MAX,
        limits: [Limit::new((1 << 20, 0), 32, 64); limit::COUNT as usize],
        ..Settings::default()
    };
    let mut changes = vec![Change::settings(settings)];
    let rule = Rule::default();
    changes.extend(lists.iter().map(|&(list, net)| Change::Put { list, net, rule }));
    assert!(memory.apply(&changes).is_empty());
    memory
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, frame)) = data.split_first() else {
        return;
    };
    // On the heap and of its own length, so that the sanitizer sees a read past the end.
    let frame: Box<[u8]> = frame.into();
    let packet = parse(Cursor::new(&frame));
    let of = |lists: &[(List, IpNet)]| decide(&packet, &tables(lists, choice & 1 != 0)).verdict;

    let plain = of(&[]);
    assert!(!matches!(
        plain,
        Verdict::Drop(DropReason::Denied | DropReason::Blocked)
    ));
    if !matches!(packet.content, Content::NotIp | Content::Unreadable(_)) {
        let source = IpAddr::from(packet.source);
        let bits = if source.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(source, choice % (bits + 1))
            .expect("no longer than the address")
            .trunc();
        let (single, deny) = (IpNet::from(source), Verdict::Drop(DropReason::Denied));
        assert_eq!(of(&[(List::Deny, net)]), deny);
        assert_eq!(of(&[(List::Deny, single)]), deny);
        assert_eq!(of(&[(List::Block, single)]), Verdict::Drop(DropReason::Blocked));
        for allow in [net, single] {
            let all = [(List::Allow, allow), (List::Deny, single), (List::Block, single)];
            assert_eq!(of(&all), Verdict::Pass(PassReason::Allowed));
        }
    }
});
