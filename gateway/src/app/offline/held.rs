//! What the tables hold, in the place of a configuration that can not be relied on.
//!
//! An order given with a half-read configuration must not undo what the whole one had put into the tables: an allow rule
//! that could not be read would be taken out, and someone locked out.

use std::collections::HashSet;

use gateway_common::tables::{NEVER, Origin};

use crate::config::model::Xdp;
use crate::dataplane::clock::Now;
use crate::dataplane::store::{RuleList, Saved};
use crate::dataplane::{Attachment, Image, List};

/// Makes `xdp` say what the tables show as configured: the lists, and where the program was put. Limits and the rest of the
/// settings the engine holds by itself.
pub(super) fn configure(xdp: &mut Xdp, image: &Image, attached: &[Attachment]) {
    if !attached.is_empty() {
        let names = attached.iter().map(|attachment| attachment.interface.clone());
        xdp.interfaces = names.collect();
    }
    let configured = |list| {
        let rules = image.list(list).iter();
        let configured = rules.filter(|(_, rule)| Origin::from_number(rule.origin) == Some(Origin::Config));
        configured.map(|(net, _)| *net).collect()
    };
    xdp.allow = configured(List::Allow);
    xdp.deny = configured(List::Deny);
}

/// Adds the commanded rules that the tables show and `saved` does not: the state directory may be another one. Whether
/// there were any.
pub(super) fn remember(saved: &mut Vec<Saved>, image: &Image, now: Now) -> bool {
    let before = saved.len();
    let known: HashSet<_> = saved.iter().map(|rule| (rule.list, rule.net)).collect();
    for list in [RuleList::Allow, RuleList::Deny] {
        for (net, rule) in image.list(list.into()) {
            let commanded = Origin::from_number(rule.origin) == Some(Origin::Command);
            if commanded && rule.live(now.boot_ns) && !known.contains(&(list, *net)) {
                saved.push(Saved {
                    list,
                    net: *net,
                    until_ms: (rule.deadline_ns != NEVER).then(|| now.wall_of_boot(rule.deadline_ns)),
                    reason: None,
                    // Not to be seen. It stays now, and is judged again with the whole configuration.
                    forced: false,
                });
            }
        }
    }
    saved.len() > before
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use gateway_common::tables::Rule;
    use ipnet::IpNet;

    use super::*;
    use crate::config::defaults;
    use crate::config::model::{PacketLimit, Rate};
    use crate::dataplane::engine::{NoEvents, World};
    use crate::dataplane::protected::Host;
    use crate::dataplane::shared::Shared;
    use crate::dataplane::{Backend, Engine, Unfiltered};

    const NOW: Now = Now {
        boot_ns: 1_000_000_000_000,
        wall_ms: 1_700_000_000_000,
    };

    fn open(tables: &Shared, xdp: Xdp, saved: Vec<Saved>) -> Engine {
        open_with(tables, xdp, &[], saved)
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn deny(net: IpNet, forced: bool) -> Saved {
        Saved {
            list: RuleList::Deny,
            net,
            until_ms: None,
            reason: None,
            forced,
        }
    }

    /// On the host 192.0.2.1.
    fn open_with(tables: &Shared, xdp: Xdp, proxies: &[&str], saved: Vec<Saved>) -> Engine {
        let config = crate::config::Config {
            xdp,
            trusted_proxies: proxies.iter().map(|text| net(text)).collect(),
            ..defaults::config()
        };
        let own = || ("192.0.2.1".parse().expect("an address"), "eth0".to_owned());
        let world = World {
            clock: Box::new(|| NOW),
            host: Box::new(move || Host {
                own: vec![own()],
                ..Host::default()
            }),
            events: Box::new(NoEvents),
        };
        Engine::open(Some(Box::new(tables.clone())), &config, saved, None, world).expect("memory")
    }

    #[test]
    fn an_engine_that_knows_nothing_leaves_the_tables_as_they_are() {
        let mut tables = Shared::new([0, 0]);
        let whole = Xdp {
            allow: vec!["10.0.0.0/8".parse().expect("a network")],
            deny: vec!["203.0.113.0/24".parse().expect("a network")],
            syn_limit: Some(PacketLimit {
                rate: Rate {
                    count: NonZeroU32::new(7).expect("not zero"),
                    per: Duration::from_secs(1),
                },
                burst: NonZeroU32::new(30).expect("not zero"),
                ipv4_prefix: 32,
                ipv6_prefix: 56,
            }),
            log_drops_every: None,
            ..defaults::xdp()
        };
        let saved = Saved {
            list: RuleList::Deny,
            net: "198.51.100.7/32".parse().expect("a network"),
            until_ms: Some(NOW.wall_ms + 60_000),
            reason: None,
            forced: false,
        };
        let written = open(&tables, whole, vec![saved.clone()])
            .reconcile()
            .expect("memory");
        assert!(written.changes > 0);
        let before = tables.enforced().expect("memory");

        let (mut xdp, mut again) = (defaults::xdp(), Vec::new());
        configure(&mut xdp, &before, &[]);
        remember(&mut again, &before, NOW);
        // The tables keep an end to a quarter of a second.
        let until = |saved: &Saved| saved.until_ms.expect("an end");
        assert!(again.len() == 1 && again[0].net == saved.net, "{again:?}");
        assert!(until(&again[0]).abs_diff(until(&saved)) < 300, "{again:?}");
        let mut engine = open(&tables, xdp, again);
        engine.hold();
        let untouched = engine.reconcile().expect("memory");
        assert_eq!(untouched.changes, 0);
        assert_eq!(tables.enforced().expect("memory"), before);
    }

    #[test]
    fn who_is_protected_is_not_decided_anew_on_half_a_configuration() {
        let mut tables = Shared::new([0, 0]);
        let whole = Xdp {
            deny: vec![net("203.0.113.0/24")],
            ..defaults::xdp()
        };
        let forced = deny(net("192.0.2.0/24"), true);
        let skipped = deny(net("172.16.5.0/24"), false);
        let saved = vec![forced, skipped.clone()];
        open_with(&tables, whole, &["172.16.0.0/12"], saved)
            .reconcile()
            .expect("memory");
        let before = tables.enforced().expect("memory");
        let shown: Vec<IpNet> = before.deny.keys().copied().collect();
        assert_eq!(shown, [net("192.0.2.0/24"), net("203.0.113.0/24")]);

        // In the middle of an edit other proxies are read, and the forced rule was remembered elsewhere.
        let (mut xdp, mut saved) = (defaults::xdp(), vec![skipped.clone()]);
        configure(&mut xdp, &before, &[]);
        remember(&mut saved, &before, NOW);
        let mut engine = open_with(&tables, xdp, &["203.0.113.7/32"], saved);
        engine.hold();
        assert_eq!(engine.reconcile().expect("memory").changes, 0);
        assert_eq!(tables.enforced().expect("memory"), before);
        assert_eq!(engine.skipped_count(), 1, "{:?}", engine.skipped());
    }

    #[test]
    fn interfaces_are_those_that_the_program_was_put_on() {
        let mut xdp = defaults::xdp();
        let gone = Attachment::without("eth7", Unfiltered::Missing);
        configure(&mut xdp, &Image::default(), &[gone]);
        assert_eq!(xdp.interfaces, ["eth7"]);
        configure(&mut xdp, &Image::default(), &[]);
        assert_eq!(xdp.interfaces, ["eth7"], "nothing better is known");
    }

    #[test]
    fn what_has_ended_is_not_remembered() {
        let mut image = Image::default();
        let ended = Rule {
            deadline_ns: NOW.boot_ns,
            origin: Origin::Command as u32,
            ..Rule::default()
        };
        image
            .deny
            .insert("192.0.2.1/32".parse().expect("a network"), ended);
        let mut saved = Vec::new();
        remember(&mut saved, &image, NOW);
        assert_eq!(saved, []);
    }
}
