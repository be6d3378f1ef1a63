use std::net::{IpAddr, Ipv4Addr};

use gateway_common::tables::Settings;
use gateway_ebpf::packet::{Content, Packet};
use gateway_ebpf::policy::decide;
use proptest::prelude::*;

use super::*;
use crate::dataplane::{Backend as _, Memory};

fn diff(desired: &Image, enforced: &Image) -> Vec<Change> {
    let wanted = |list| desired.list(list).iter().map(|(net, rule)| (*net, *rule));
    compare(0, 0, &desired.settings, wanted, enforced)
}

fn ready() -> Settings {
    Settings {
        ready: 1,
        ..Settings::default()
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a literal")
}

fn image(allow: &[IpNet], deny: &[IpNet], block: &[IpNet]) -> Image {
    let rules = |nets: &[IpNet]| nets.iter().map(|net| (*net, Rule::default())).collect();
    Image {
        settings: ready(),
        allow: rules(allow),
        deny: rules(deny),
        block: rules(block),
    }
}

fn filled(image: &Image) -> Memory {
    let mut memory = Memory::new([0, 0]);
    let empty = memory.enforced().expect("memory");
    assert!(memory.apply(&diff(image, &empty)).is_empty());
    memory
}

/// Whether a packet from each address of a small world passes.
fn world(memory: &Memory) -> Vec<bool> {
    let addrs = (0..=255).map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
    addrs
        .map(|addr| {
            let packet = Packet {
                source: addr.into(),
                content: Content::Other,
                port: 0,
            };
            let verdict = decide(&packet, memory).verdict;
            matches!(verdict, gateway_common::outcome::Verdict::Pass(_))
        })
        .collect()
}

#[test]
fn what_is_there_already_is_left_alone() {
    let there = image(
        &[net("10.0.0.0/8")],
        &[net("192.0.2.0/24")],
        &[net("198.51.100.1/32")],
    );
    let mut memory = filled(&there);
    assert_eq!(diff(&there, &memory.enforced().expect("memory")), []);
}

#[test]
fn a_deadline_that_went_through_the_disk_is_no_change_and_a_real_one_is() {
    let mut there = image(&[], &[net("192.0.2.0/24")], &[]);
    there.deny.insert(
        net("192.0.2.0/24"),
        Rule {
            deadline_ns: 60_000_000_000,
            hits: 9,
            ..Rule::default()
        },
    );
    let mut wanted = there.clone();
    let mut at = |deadline_ns| {
        wanted.deny.insert(
            net("192.0.2.0/24"),
            Rule {
                deadline_ns,
                ..Rule::default()
            },
        );
        diff(&wanted, &there)
    };
    assert_eq!(at(60_900_000_000), []);
    for other in [NEVER, 70_000_000_000] {
        let expected = Rule {
            deadline_ns: other,
            hits: 9,
            ..Rule::default()
        };
        assert_eq!(
            at(other),
            [Change::Put {
                list: List::Deny,
                net: net("192.0.2.0/24"),
                rule: expected
            }]
        );
    }
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let one = (any::<u8>(), 24_u8..=32).prop_map(|(last, bits)| {
        IpNet::new(Ipv4Addr::new(10, 0, 0, last).into(), bits)
            .expect("at most 32 bits")
            .trunc()
    });
    prop::collection::vec(one, 0..6)
}

fn images() -> impl Strategy<Value = Image> {
    (nets(), nets(), nets()).prop_map(|(allow, deny, block)| {
        let block: Vec<IpNet> = block.iter().map(|net| IpNet::from(net.addr())).collect();
        image(&allow, &deny, &block)
    })
}

proptest! {
    #[test]
    fn applying_the_difference_reaches_the_desired_state(old in images(), new in images()) {
        let mut memory = filled(&old);
        let before = memory.enforced().expect("memory");
        prop_assert!(memory.apply(&diff(&new, &before)).is_empty());
        let after = memory.enforced().expect("memory");
        prop_assert_eq!(diff(&new, &after), []);
        for list in [List::Allow, List::Deny, List::Block] {
            prop_assert!(after.list(list).keys().eq(new.list(list).keys()));
        }
    }

    #[test]
    fn at_each_step_every_address_meets_its_old_verdict_or_its_new_one(old in images(), new in images()) {
        let mut memory = filled(&old);
        let (before, after) = (world(&memory), world(&filled(&new)));
        let there = memory.enforced().expect("memory");
        for change in diff(&new, &there) {
            memory.apply(std::slice::from_ref(&change));
            for (at, passes) in world(&memory).into_iter().enumerate() {
                prop_assert!(
                    passes == before[at] || passes == after[at],
                    "10.0.0.{at} after {change:?}"
                );
            }
        }
    }
}
