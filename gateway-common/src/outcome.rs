//! Every way a packet can end, with its number and name.
//!
//! Owns the vocabulary of counters, metric labels and log lines for packets. A number is written once and never
//! used again: tables of an older program may still be pinned, and dashboards outlive releases.

/// Defines an outcome enum together with its name table, so that neither can be forgotten.
macro_rules! outcomes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal => $label:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant = $number,)+ }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name used as metric label, in logs and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The variant's counter: an index below [`SLOTS`].
            #[inline(always)]
            #[must_use]
            pub const fn slot(self) -> u32 {
                self as u32
            }
        }
    };
}

/// Counter slots: room for every outcome there is and will be in this ABI version.
pub const SLOTS: u32 = 256;
/// Distance of an observed drop's counter from the drop's own.
pub const OBSERVED: u32 = 128;

outcomes! {
    /// Why a packet was handed to the kernel's network stack.
    PassReason {
        /// Not IPv4 or IPv6: ARP, LLDP and the like are never filtered.
        NotIp = 0 => "not_ip",
        /// The source is under an allow rule; nothing else was looked at.
        Allowed = 1 => "allowed",
        /// No rule, block or limit spoke against it.
        Clean = 2 => "clean",
        /// The program has no settings yet, or was told to let everything through.
        Bypass = 3 => "bypass",
    }
}

outcomes! {
    /// How a packet was answered by the program itself. The network stack never saw it.
    AnswerReason {
        /// A SYN over the rate of its listener: by a SYN-ACK that carries a SYN cookie.
        SynCookie = 16 => "syn_cookie",
    }
}

outcomes! {
    /// Why a packet was dropped.
    DropReason {
        /// The source is under an operator's deny rule.
        Denied = 32 => "denied",
        /// The source is blocked for a time, most often because of its requests.
        Blocked = 33 => "blocked",
        /// The source opens connections faster than the SYN limit lets it.
        SynLimit = 34 => "syn_limit",
        /// The sources around this one open connections faster than one network may.
        SynAggregateLimit = 35 => "syn_aggregate_limit",
        /// All sources together open connections faster than this host lets them.
        SynGlobalLimit = 36 => "syn_global_limit",
        /// The source sends ICMP faster than it may.
        IcmpLimit = 37 => "icmp_limit",
        /// The source sends UDP faster than it may.
        UdpLimit = 38 => "udp_limit",
        /// While SYNs are answered by cookies: an ACK of no connection, whose number is no cookie of this host.
        InvalidCookie = 39 => "invalid_cookie",
        /// While SYNs are answered by cookies: one that can not be, for its IP options, extension headers or fragments.
        UnanswerableSyn = 40 => "unanswerable_syn",
        /// The frame ends inside a header it announces.
        Truncated = 48 => "truncated",
        /// A header carries a version or length that can not be.
        BadHeader = 49 => "bad_header",
        /// The IPv6 source is an IPv4-mapped address, which never appears on a wire (RFC 4291, 2.5.5.2).
        MappedSource = 50 => "mapped_source",
        /// More IPv6 extension headers than any stack sends.
        TooManyHeaders = 51 => "too_many_headers",
        /// TCP flags that no stack sends together: none, SYN with FIN or RST, FIN without ACK.
        BadFlags = 52 => "bad_flags",
        /// Source and destination are one address ("LAND").
        SourceIsDestination = 53 => "source_is_destination",
        /// The source is a multicast or broadcast address.
        MulticastSource = 54 => "multicast_source",
        /// The source is a loopback address, which never appears on a wire (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3).
        LoopbackSource = 55 => "loopback_source",
    }
}

impl DropReason {
    /// First of the reasons that say that a packet is malformed.
    const FIRST_MALFORMED: u32 = Self::Truncated as u32;

    /// The counter of packets that would have been dropped for this reason, were the list, limit or check that it
    /// belongs to not in observe mode.
    #[inline(always)]
    #[must_use]
    pub const fn observed_slot(self) -> u32 {
        self.slot() + OBSERVED
    }

    /// The bit of [`crate::tables::Settings::malformed`] that switches this check on; zero for a reason that is none.
    #[inline(always)]
    #[must_use]
    pub const fn malformed_bit(self) -> u32 {
        match (self as u32).checked_sub(Self::FIRST_MALFORMED) {
            Some(bit) if bit < 32 => 1 << bit,
            _ => 0,
        }
    }
}

/// What the policy decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the network stack.
    Pass(PassReason),
    /// Discard it.
    Drop(DropReason),
    /// Send an answer back to where it came from, made of the packet itself.
    Answer(AnswerReason),
}

impl Verdict {
    /// The counter this verdict belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        match self {
            Self::Pass(reason) => reason.slot(),
            Self::Drop(reason) => reason.slot(),
            Self::Answer(reason) => reason.slot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_and_in_range() {
        let mut seen = [false; SLOTS as usize];
        let slots = PassReason::ALL
            .iter()
            .map(|r| r.slot())
            .chain(AnswerReason::ALL.iter().map(|r| r.slot()))
            .chain(DropReason::ALL.iter().map(|r| r.slot()))
            .chain(DropReason::ALL.iter().map(|r| r.observed_slot()));
        for slot in slots {
            assert!(
                !core::mem::replace(&mut seen[slot as usize], true),
                "slot {slot} is used twice"
            );
        }
    }

    #[test]
    fn each_malformed_reason_has_a_bit_of_its_own() {
        let bits = DropReason::ALL.iter().map(|reason| reason.malformed_bit());
        let all = bits.clone().fold(0, |all, bit| all | bit);
        assert_eq!(all.count_ones(), bits.filter(|bit| *bit != 0).count() as u32);
        assert_eq!(DropReason::UdpLimit.malformed_bit(), 0);
        assert_ne!(DropReason::Truncated.malformed_bit(), 0);
    }
}
