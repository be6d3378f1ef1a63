//! Writes and reads the tables of networks; the layout is `gateway_common::networks`.
//!
//! Cuts lists of networks, which may lie within each other, into ranges that do not. In each range the longest network
//! of a list speaks, unless one around it stays longer: then that one does, or the range would be open once the
//! longest has ended.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gateway_common::addr::Addr;
use gateway_common::entry::{Kind, Stamp, Tally};
use gateway_common::networks::{SPANS, number4, number6, search};
use gateway_common::tables::Rule;
use ipnet::IpNet;

use super::region::Region;
use crate::dataplane::place::outlasts;

/// A network, its list and its rule.
pub type Listed = (IpNet, Kind, Rule);

/// The maps of networks, two halves each.
#[derive(Debug)]
pub struct Networks {
    pub spans4: Region,
    pub ranges4: Region,
    pub ranges6: Region,
    pub networks: Region,
    /// Ranges in a half, of either family.
    pub ranges: u32,
    /// Networks in a half, the unused first one included.
    pub entries: u32,
}

/// A range before it is written: start, and references to networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u128,
    allow: u32,
    deny: u32,
}

/// More networks, or more ranges of them, than fit.
#[derive(Debug)]
pub struct TooMany;

impl Networks {
    /// Fills a half, which nobody reads yet. Returns the number of the last IPv6 range.
    pub fn write(&self, half: u32, listed: &[Listed]) -> Result<u32, TooMany> {
        if listed.len() >= self.entries as usize {
            return Err(TooMany);
        }
        let four = cut(listed, true);
        let six = cut(listed, false);
        if four.len().max(six.len()) > self.ranges as usize {
            return Err(TooMany);
        }
        self.write_networks(half, listed);
        self.each_word(half, &four, &six, |to, word| {
            store(to, word);
            true
        });
        Ok(six.len() as u32 - 1)
    }

    /// Whether the ranges of a half, `last6` the last of IPv6, are those that its networks are cut into: what packets
    /// meet is what is listed.
    pub fn is_cut(&self, half: u32, last6: u32) -> bool {
        let listed = self.listed(half);
        let (four, six) = (cut(&listed, true), cut(&listed, false));
        four.len().max(six.len()) <= self.ranges as usize
            && six.len() as u64 == u64::from(last6) + 1
            && self.each_word(half, &four, &six, |there, word| {
                there.load(Ordering::Relaxed) == word
            })
    }

    /// Shows each word of the ranges and spans of a half with what belongs there, for as long as `visit` wants more.
    fn each_word(
        &self,
        half: u32,
        four: &[Range],
        six: &[Range],
        mut visit: impl FnMut(&AtomicU64, u64) -> bool,
    ) -> bool {
        let words = self.ranges4.words()[self.first_range(half) * 2..].chunks(2);
        let four_fit = four.iter().zip(words).all(|(range, at)| {
            visit(&at[0], pair(range.start as u32, range.allow)) && visit(&at[1], pair(range.deny, 0))
        });
        let words = self.ranges6.words()[self.first_range(half) * 4..].chunks(4);
        let six_fit = four_fit
            && six.iter().zip(words).all(|(range, at)| {
                visit(&at[0], (range.start >> 64) as u64)
                    && visit(&at[1], range.start as u64)
                    && visit(&at[2], pair(range.allow, range.deny))
                    && visit(&at[3], 0)
            });
        let words = &self.spans4.words()[(half * SPANS) as usize..];
        six_fit && spans(four).zip(words).all(|(span, at)| visit(at, span))
    }

    fn write_networks(&self, half: u32, listed: &[Listed]) {
        let words = self.networks.words();
        let mut places = words[self.first_network(half) * 4..].chunks(4).skip(1);
        for ((net, kind, rule), to) in listed.iter().zip(&mut places) {
            let [high, low] = Addr::from(net.addr()).halves();
            store(&to[0], high);
            store(&to[1], low);
            let stamp = Stamp::new(*kind, rule.deadline_ns);
            store(&to[2], pair(u32::from(net.prefix_len()), stamp.0));
            store(&to[3], Tally::of(rule).0);
        }
        if listed.len() + 1 < self.entries as usize
            && let Some(end) = places.next()
        {
            store(&end[2], 0);
        }
    }

    pub fn first_range(&self, half: u32) -> usize {
        (half * self.ranges) as usize
    }

    pub fn first_network(&self, half: u32) -> usize {
        (half * self.entries) as usize
    }

    /// Every network of a half, in the order of its references, the first of which is 1.
    pub fn listed(&self, half: u32) -> Vec<Listed> {
        let words = &self.networks.words()[self.first_network(half) * 4..];
        let places = words.chunks(4).take(self.entries as usize).skip(1);
        places.map_while(read).collect()
    }

    /// Adds to a half what was counted in the other one since that had the `known` hits, in the order of its list. The
    /// program must have left it.
    pub fn carry_hits(&self, from: u32, to: u32, known: &[u64]) {
        let counted = self.listed(from);
        let mut more = counted.iter().zip(known);
        let mut more = std::iter::from_fn(|| more.find(|((.., rule), known)| rule.hits > **known)).peekable();
        if more.peek().is_none() {
            return;
        }
        let there = self.listed(to);
        let words = self.networks.words();
        for ((net, kind, rule), known) in more {
            if let Ok(index) = there.binary_search_by_key(&(*net, *kind), |(net, kind, _)| (*net, *kind)) {
                // The first place is never used.
                let tally = &words[(self.first_network(to) + index + 1) * 4 + 3];
                tally.fetch_add(rule.hits - known, Ordering::Relaxed);
            }
        }
    }

    /// The allow and the deny rule that speak for an address, whether or not they are in force.
    pub fn around(&self, half: u32, last6: u32, addr: IpAddr) -> [Option<(IpNet, Rule)>; 2] {
        let key = Addr::from(addr);
        let references = if addr.is_ipv4() {
            self.around4(half, number4(&key))
        } else {
            self.around6(half, last6, number6(&key))
        };
        references.map(|reference| {
            let at = (self.first_network(half) + reference as usize) * 4;
            let (net, _, rule) = read(self.networks.words().get(at..at + 4)?)?;
            (reference != 0).then_some((net, rule))
        })
    }

    fn around4(&self, half: u32, number: u32) -> [u32; 2] {
        let halves = self.ranges4.halves();
        // Spans that were tampered with may lead anywhere.
        let at = |index: u32, field: usize| {
            halves
                .get((self.first_range(half) + index as usize) * 4 + field)
                .map(load)
        };
        let span = &self.spans4.halves()[((half * SPANS + (number >> 16)) * 2) as usize..];
        let found = search(load(&span[0]), load(&span[1]), |index| {
            Some(at(index, 0)? <= number)
        });
        let references = found.and_then(|index| Some([at(index, 1)?, at(index, 2)?]));
        references.unwrap_or([0; 2])
    }

    fn around6(&self, half: u32, last: u32, number: [u64; 2]) -> [u32; 2] {
        let words = self.ranges6.words();
        let at = |index: u32, field: usize| {
            let word = words.get((self.first_range(half) + index as usize) * 4 + field)?;
            Some(word.load(Ordering::Relaxed))
        };
        let found = search(0, last, |index| Some([at(index, 0)?, at(index, 1)?] <= number));
        let references = found.and_then(|index| at(index, 2)).map(halves_of);
        references.unwrap_or([0; 2])
    }
}

/// The spans of IPv4 ranges, as they lie in their map.
fn spans(ranges: &[Range]) -> impl Iterator<Item = u64> {
    let mut at = 0;
    let mut up_to = move |end: u32| {
        while ranges
            .get(at + 1)
            .is_some_and(|next| next.start <= u128::from(end))
        {
            at += 1;
        }
        at as u32
    };
    (0..SPANS).map(move |upper| {
        let first = up_to(upper << 16);
        let last = up_to(upper << 16 | 0xffff);
        pair(first, last)
    })
}

fn store(to: &AtomicU64, value: u64) {
    to.store(value, Ordering::Relaxed);
}

fn load(from: &AtomicU32) -> u32 {
    from.load(Ordering::Relaxed)
}

/// Two fields of four bytes as they lie next to each other.
fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([
        first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3],
    ])
}

/// The reverse of [`pair`].
fn halves_of(word: u64) -> [u32; 2] {
    let b = word.to_ne_bytes();
    [
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
        u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    ]
}

/// `None` at the end of the list.
fn read(place: &[AtomicU64]) -> Option<Listed> {
    let word = |index: usize| place[index].load(Ordering::Relaxed);
    let [bits, stamp] = halves_of(word(2));
    let stamp = Stamp(stamp);
    let kind = Kind::from_number(stamp.kind())?;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word(0).to_ne_bytes());
    bytes[8..].copy_from_slice(&word(1).to_ne_bytes());
    let net = IpNet::new(Addr::v6(bytes).into(), u8::try_from(bits).ok()?).ok()?;
    Some((net, kind, Tally(word(3)).rule(stamp)))
}

fn bounds(net: &IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

/// A network that is open at a point of the sweep.
struct OpenNet {
    /// Its last address.
    end: u128,
    /// The network that speaks where this one is the innermost.
    speaker: u32,
    /// When that one ends.
    deadline_ns: u64,
}

/// The networks of one list that are open, each within the one before it.
#[derive(Default)]
struct Open(Vec<OpenNet>);

impl Open {
    fn close_before(&mut self, point: u128) {
        while self.0.last().is_some_and(|net| net.end < point) {
            self.0.pop();
        }
    }

    fn push(&mut self, end: u128, reference: u32, deadline_ns: u64) {
        let (speaker, deadline_ns) = match self.0.last() {
            Some(around) if !outlasts(deadline_ns, around.deadline_ns) => {
                (around.speaker, around.deadline_ns)
            }
            _ => (reference, deadline_ns),
        };
        self.0.push(OpenNet {
            end,
            speaker,
            deadline_ns,
        });
    }

    fn speaker(&self) -> u32 {
        self.0.last().map_or(0, |net| net.speaker)
    }
}

/// Cuts the networks of one family into ranges, the first of which starts at zero. A network's reference is its index
/// plus one.
fn cut(listed: &[Listed], ipv4: bool) -> Vec<Range> {
    let last = if ipv4 { u128::from(u32::MAX) } else { u128::MAX };
    let mut nets: Vec<_> = listed
        .iter()
        .enumerate()
        .filter(|(_, (net, ..))| net.addr().is_ipv4() == ipv4)
        .map(|(index, (net, kind, rule))| {
            let (start, end) = bounds(net);
            let deadline_ns = Stamp::rounded(rule.deadline_ns);
            (start, net.prefix_len(), end, *kind, index as u32 + 1, deadline_ns)
        })
        .collect();
    // A network stands before all that lie within it.
    nets.sort_unstable_by_key(|(start, length, ..)| (*start, *length));
    let mut points: Vec<u128> = vec![0];
    for (start, _, end, ..) in &nets {
        points.push(*start);
        if *end < last {
            points.push(end + 1);
        }
    }
    points.sort_unstable();
    points.dedup();

    let (mut allow, mut deny) = (Open::default(), Open::default());
    let mut nets = nets.into_iter().peekable();
    let mut ranges: Vec<Range> = Vec::with_capacity(points.len());
    for point in points {
        allow.close_before(point);
        deny.close_before(point);
        while let Some((_, _, end, kind, reference, deadline_ns)) =
            nets.next_if(|(start, ..)| *start == point)
        {
            let open = if kind == Kind::Allow {
                &mut allow
            } else {
                &mut deny
            };
            open.push(end, reference, deadline_ns);
        }
        let range = Range {
            start: point,
            allow: allow.speaker(),
            deny: deny.speaker(),
        };
        let same = |last: &Range| (last.allow, last.deny) == (range.allow, range.deny);
        if !ranges.last().is_some_and(same) {
            ranges.push(range);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(nets: &[(&str, Kind)]) -> Vec<Listed> {
        nets.iter()
            .map(|(net, kind)| (net.parse().expect("a network"), *kind, Rule::default()))
            .collect()
    }

    fn ranges(nets: &[(&str, Kind)]) -> Vec<(u128, u32, u32)> {
        let listed = listed(nets);
        cut(&listed, true)
            .into_iter()
            .map(|range| (range.start, range.allow, range.deny))
            .collect()
    }

    #[test]
    fn nothing_listed_is_one_range() {
        assert_eq!(ranges(&[]), [(0, 0, 0)]);
        assert_eq!(ranges(&[("2001:db8::/32", Kind::Deny)]), [(0, 0, 0)]);
    }

    #[test]
    fn the_longest_wins_in_its_list_and_the_cover_goes_on_behind_it() {
        let nets = [
            ("10.0.0.0/8", Kind::Deny),
            ("10.1.0.0/16", Kind::Deny),
            ("10.1.2.0/24", Kind::Allow),
            ("10.0.0.0/8", Kind::Allow),
        ];
        assert_eq!(
            ranges(&nets),
            [
                (0, 0, 0),
                (0x0a00_0000, 4, 1),
                (0x0a01_0000, 4, 2),
                (0x0a01_0200, 3, 2),
                (0x0a01_0300, 4, 2),
                (0x0a02_0000, 4, 1),
                (0x0b00_0000, 0, 0),
            ]
        );
    }

    #[test]
    fn a_short_lived_network_leaves_the_word_to_the_one_around_it() {
        let until = |deadline_ns| Rule {
            deadline_ns,
            ..Rule::default()
        };
        let net = |text: &str| text.parse().expect("a network");
        let listed = [
            (net("10.0.0.0/8"), Kind::Deny, until(0)),
            (net("10.1.0.0/16"), Kind::Deny, until(Stamp::UNIT_NS)),
            (net("10.1.2.0/24"), Kind::Deny, until(0)),
            (net("10.1.3.0/24"), Kind::Deny, until(2 * Stamp::UNIT_NS)),
        ];
        let speakers: Vec<u32> = cut(&listed, true).iter().map(|range| range.deny).collect();
        assert_eq!(speakers, [0, 1, 3, 1, 0]);
    }

    #[test]
    fn the_whole_space_and_its_last_network_have_no_end() {
        let nets = [("0.0.0.0/0", Kind::Deny), ("255.0.0.0/8", Kind::Deny)];
        assert_eq!(ranges(&nets), [(0, 0, 1), (0xff00_0000, 0, 2)]);
    }
}
