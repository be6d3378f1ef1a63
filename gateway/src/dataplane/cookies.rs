//! SYN cookies: what the keeper of the tables can do, and the part of the settings that follows from it. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use gateway_common::addr::Addr;
use gateway_common::limiter::cost;
use gateway_common::tables::{Cookies, LISTENERS, Limit, Settings, feature, limit, observe};

use crate::config::model::{Listener, Xdp};

/// Whether the keeper of the tables can have SYNs answered by cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ability {
    /// Not this keeper's business: what the settings say of cookies stays. A command's view of pinned tables.
    #[default]
    Unknown,
    /// Nobody asked for them.
    NotAsked,
    Unable {
        why: String,
    },
    Able(Facts),
}

/// What an answer needs to know of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The window scale of this host's own sockets; `None` if cookies can not carry options here.
    pub window_scale: Option<u8>,
    /// Why there are no options, if there are none.
    pub note: Option<String>,
    pub mss4: u16,
    pub mss6: u16,
}

/// The bits that say that cookies are on.
const BITS: u32 = feature::SYN_COOKIES | feature::COOKIE_OPTIONS;

/// Whether the configuration wants SYNs answered. Where everything is only observed, nothing is answered either.
#[must_use]
pub fn wanted(xdp: &Xdp) -> bool {
    xdp.syn_cookies.is_some() && xdp.observe != observe::ALL
}

/// Completes `settings` by what the configuration, the listeners and the host make of cookies; `kept` are the settings
/// in force.
pub fn complete(settings: &mut Settings, xdp: &Xdp, listen: &[Listener], ability: &Ability, kept: &Settings) {
    let at = limit::SYN_COOKIES as usize;
    settings.features &= !BITS;
    match (ability, &xdp.syn_cookies) {
        (Ability::Unknown, _) => {
            settings.features |= kept.features & BITS;
            settings.cookies = kept.cookies;
            settings.limits[at] = kept.limits[at];
        }
        (Ability::Able(facts), Some(cookies)) if wanted(xdp) => {
            settings.features |= feature::SYN_COOKIES;
            if facts.window_scale.is_some() {
                settings.features |= feature::COOKIE_OPTIONS;
            }
            settings.cookies = Cookies {
                mss4: facts.mss4,
                mss6: facts.mss6,
                window_scale: facts.window_scale.unwrap_or(0).into(),
                ..Cookies::default()
            };
            for (index, address) in answered(listen).take(LISTENERS).enumerate() {
                settings.cookies.listen(
                    index,
                    gateway_common::tables::Listener {
                        addr: Addr::from(address.ip()).0,
                        port: address.port(),
                        ..Default::default()
                    },
                );
            }
            let per_ns = u64::try_from(cookies.above.per.as_nanos()).unwrap_or(u64::MAX);
            let (interval, tolerance) = cost(cookies.above.count.get(), per_ns, cookies.burst.get());
            settings.limits[at] = Limit::new((interval, tolerance.max(super::limits::TICK_NS)), 32, 128);
        }
        _ => {}
    }
}

/// The addresses whose SYNs can be answered: those with a port that is known.
pub fn answered(listen: &[Listener]) -> impl Iterator<Item = SocketAddr> {
    listen
        .iter()
        .map(|listener| listener.address)
        .filter(|address| address.port() != 0)
}

/// What an operator sees of cookies.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CookieRow {
    /// SYNs over the rate are answered by cookies.
    pub enabled: bool,
    /// A SYN was answered within the last seconds, and ACKs are checked.
    pub answering: bool,
    /// Cookies carry window scale and SACK.
    pub options: bool,
    /// Why they are not enabled, or carry no options.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

impl CookieRow {
    /// `None` if nobody asked for cookies and there are none.
    #[must_use]
    pub fn of(ability: &Ability, settings: &Settings, answering: bool) -> Option<Self> {
        let enabled = settings.features & feature::SYN_COOKIES != 0;
        let note = match ability {
            Ability::Unknown | Ability::NotAsked if !enabled => return None,
            Ability::Unknown | Ability::NotAsked => None,
            Ability::Unable { why } => Some(why.clone()),
            Ability::Able(facts) => facts.note.clone(),
        };
        Some(Self {
            enabled,
            answering: enabled && answering,
            options: settings.features & feature::COOKIE_OPTIONS != 0,
            note,
        })
    }
}

/// Longest time in which the window scale of this host may be found out.
pub const PROBE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;
    use crate::config::model::{Rate, SynCookies};

    fn xdp() -> Xdp {
        let nonzero = |n| std::num::NonZeroU32::new(n).expect("not zero");
        Xdp {
            syn_cookies: Some(SynCookies {
                above: Rate {
                    count: nonzero(1000),
                    per: Duration::from_secs(1),
                },
                burst: nonzero(1000),
                set_sysctls: true,
            }),
            ..defaults::xdp()
        }
    }

    fn listen(address: &str) -> Listener {
        Listener::plain(address.parse().expect("an address"))
    }

    fn able(window_scale: Option<u8>) -> Ability {
        Ability::Able(Facts {
            window_scale,
            note: None,
            mss4: 1460,
            mss6: 1440,
        })
    }

    #[test]
    fn listeners_with_a_port_are_answered_for() {
        let listen = [
            listen("0.0.0.0:443"),
            listen("[::]:0"),
            listen("[2001:db8::1]:8443"),
        ];
        let mut settings = Settings::default();
        complete(
            &mut settings,
            &xdp(),
            &listen,
            &able(Some(7)),
            &Settings::default(),
        );
        assert_eq!(settings.features, BITS);
        assert!(settings.cookies.has_port(443) && settings.cookies.has_port(8443));
        assert_eq!(settings.cookies.listeners[0].addr, Addr::v4([0; 4]).0);
        assert_eq!(settings.cookies.listeners[2].port, 0);
        assert_eq!(settings.cookies.window_scale, 7);
        assert_eq!(settings.limits[5].interval, 977, "a thousandth of a second");
    }

    #[test]
    fn what_is_not_known_stays_and_what_is_impossible_is_off() {
        let mut kept = Settings::default();
        complete(
            &mut kept,
            &xdp(),
            &[listen("0.0.0.0:443")],
            &able(None),
            &Settings::default(),
        );
        assert_eq!(kept.features, feature::SYN_COOKIES);
        let mut settings = Settings::default();
        complete(&mut settings, &xdp(), &[], &Ability::Unknown, &kept);
        assert_eq!(settings, kept);
        let unable = Ability::Unable { why: "old".into() };
        complete(&mut settings, &xdp(), &[], &unable, &kept);
        assert_eq!(settings.features, 0);
        let row = CookieRow::of(&unable, &settings, true).expect("asked for");
        assert_eq!(
            (row.enabled, row.answering, row.note.as_deref()),
            (false, false, Some("old"))
        );
    }

    #[test]
    fn where_everything_is_observed_nothing_is_answered() {
        let observed = Xdp {
            observe: observe::ALL,
            ..xdp()
        };
        let mut settings = Settings::default();
        complete(
            &mut settings,
            &observed,
            &[listen("0.0.0.0:443")],
            &able(None),
            &Settings::default(),
        );
        assert_eq!(settings, Settings::default());
    }
}
