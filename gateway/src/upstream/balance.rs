//! Which endpoint is next. Pure but for the counters it is handed; knows nothing of connections.

use std::sync::Arc;

use super::Endpoint;
use super::hash::draw;
use crate::config::model::Balance;

/// One worker's place in the turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    credit: Vec<i64>,
}

/// Among whom to pick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub(super) endpoints: &'a [Arc<Endpoint>],
    /// Whether those that are not well are left out.
    pub(super) sifted: bool,
    /// Those that are not to be picked again.
    pub(super) tried: &'a [usize],
}

impl Choice<'_> {
    fn is_open(&self, index: usize) -> bool {
        !self.tried.contains(&index) && (!self.sifted || self.endpoints[index].is_well())
    }

    fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.endpoints.len()).filter(|index| self.is_open(*index))
    }

    /// The one that a client's cookie names, if it can be picked.
    pub(super) fn named(&self, cookie: &str) -> Option<usize> {
        self.open().find(|index| self.endpoints[*index].is_named(cookie))
    }
}

impl Turn {
    /// Picks one; `None` if there is none to pick.
    ///
    /// `key` is for [`Balance::ConsistentHash`]; a request without one takes its turn. `random` is called only by
    /// [`Balance::LeastRequests`].
    pub(super) fn pick(
        &mut self,
        balance: Balance,
        choice: &Choice<'_>,
        key: Option<u64>,
        random: impl FnMut() -> u64,
    ) -> Option<usize> {
        let untried = choice.endpoints.len() - choice.tried.len().min(choice.endpoints.len());
        if untried <= 1 && !choice.sifted {
            return choice.open().next();
        }
        match (balance, key) {
            (Balance::ConsistentHash, Some(key)) => consistent(choice, key),
            (Balance::LeastRequests, _) => least_requests(choice, random),
            (Balance::RoundRobin | Balance::ConsistentHash, _) => self.round_robin(choice),
        }
    }

    /// Smooth weighted round robin: everyone gains its weight, the richest is picked and pays the total. Picks of
    /// a heavy endpoint are spread out instead of coming in a row.
    fn round_robin(&mut self, choice: &Choice<'_>) -> Option<usize> {
        self.credit.resize(choice.endpoints.len(), 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in choice.open() {
            let weight = i64::from(choice.endpoints[index].share());
            total += weight;
            self.credit[index] += weight;
            if best.is_none_or(|best| self.credit[index] > self.credit[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            self.credit[best] -= total;
        }
        best
    }
}

/// Rendezvous hashing: everyone draws a number made of the key and itself, in proportion to its weight, and the best
/// wins. When one goes, only its keys move, and they move to all others by weight; nothing has to be built or kept. It
/// looks at every endpoint, which for a hundred takes about a microsecond.
fn consistent(choice: &Choice<'_>, key: u64) -> Option<usize> {
    let score = |index: usize| {
        let endpoint = &choice.endpoints[index];
        -draw(key, endpoint.hash).ln() / f64::from(endpoint.share())
    };
    choice
        .open()
        .map(|index| (index, score(index)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(index, _)| index)
}

/// The less loaded of two different ones drawn by weight; load is requests in flight for each unit of weight.
fn least_requests(choice: &Choice<'_>, mut random: impl FnMut() -> u64) -> Option<usize> {
    let share = |index: usize| u64::from(choice.endpoints[index].share());
    let mut draw = |without: Option<usize>| {
        let candidates = || choice.open().filter(|i| Some(*i) != without);
        let total: u64 = candidates().map(share).sum();
        let mut left = random().checked_rem(total)?;
        candidates().find(|i| {
            let hit = left < share(*i);
            left = left.saturating_sub(share(*i));
            hit
        })
    };
    let first = draw(None)?;
    let Some(second) = draw(Some(first)) else {
        return Some(first);
    };
    // In flight plus the request to be placed, compared as fractions without a division.
    let load = |i: usize, other: usize| (u64::from(choice.endpoints[i].in_flight()) + 1) * share(other);
    Some(if load(second, first) < load(first, second) {
        second
    } else {
        first
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::hash;

    fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        weights
            .iter()
            .zip(1..)
            .map(|(weight, last)| Endpoint::weighing(*weight, last))
            .collect()
    }

    fn among(endpoints: &[Arc<Endpoint>]) -> Choice<'_> {
        Choice {
            endpoints,
            sifted: false,
            tried: &[],
        }
    }

    fn counts(balance: Balance, choice: &Choice<'_>, picks: u64) -> Vec<usize> {
        let mut turn = Turn::default();
        let mut seed = 1_u64;
        let mut counts = vec![0; choice.endpoints.len()];
        for key in 0..picks {
            let random = || {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                seed >> 16
            };
            counts[turn.pick(balance, choice, Some(hash::mix(key)), random).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact_in_every_full_turn_and_smooth_within() {
        let endpoints = endpoints(&[3, 1]);
        assert_eq!(counts(Balance::RoundRobin, &among(&endpoints), 4), [3, 1]);
        assert_eq!(
            counts(Balance::RoundRobin, &among(&endpoints), 4000),
            [3000, 1000]
        );
        let mut turn = Turn::default();
        let order: Vec<_> = (0..4)
            .filter_map(|_| turn.pick(Balance::RoundRobin, &among(&endpoints), None, || 0))
            .collect();
        assert_eq!(
            order,
            [0, 0, 1, 0],
            "the light one comes in the middle, not at the end"
        );
    }

    #[test]
    fn least_requests_follows_weights_when_idle_and_shuns_the_loaded() {
        let endpoints = endpoints(&[1, 1, 1]);
        endpoints[0].load(50);
        let counts = counts(Balance::LeastRequests, &among(&endpoints), 3000);
        assert_eq!(
            counts[0], 0,
            "one of two different candidates is always idle: {counts:?}"
        );
        assert!(counts[1] > 1200 && counts[2] > 1200, "{counts:?}");
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        let endpoints = endpoints(&[1, 100, 1]);
        for balance in [
            Balance::RoundRobin,
            Balance::LeastRequests,
            Balance::ConsistentHash,
        ] {
            let mut turn = Turn::default();
            let mut pick = |tried: &[usize]| {
                let choice = Choice {
                    tried,
                    ..among(&endpoints)
                };
                turn.pick(balance, &choice, Some(1), || 7)
            };
            assert_eq!(pick(&[1, 0]), Some(2));
            assert_eq!(pick(&[0, 1, 2]), None);
        }
    }

    #[test]
    fn the_unwell_are_left_out_while_they_are_sifted() {
        let endpoints = endpoints(&[1, 1, 1]);
        endpoints[1].set_down(true);
        for balance in [
            Balance::RoundRobin,
            Balance::LeastRequests,
            Balance::ConsistentHash,
        ] {
            let sifted = Choice {
                sifted: true,
                ..among(&endpoints)
            };
            assert_eq!(counts(balance, &sifted, 300)[1], 0, "{balance:?}");
            assert!(
                counts(balance, &among(&endpoints), 300)[1] > 50,
                "all are used in a panic"
            );
        }
        let alone = &endpoints[1..2];
        let mut turn = Turn::default();
        let none = Choice {
            sifted: true,
            ..among(alone)
        };
        assert_eq!(turn.pick(Balance::RoundRobin, &none, None, || 0), None);
    }

    #[test]
    fn a_slow_start_gets_less_and_then_its_share() {
        let endpoints = endpoints(&[1, 1]);
        endpoints[1].set_share(10);
        for balance in [
            Balance::RoundRobin,
            Balance::LeastRequests,
            Balance::ConsistentHash,
        ] {
            let few = counts(balance, &among(&endpoints), 1100)[1];
            // The less loaded of two is always one of both, so there only the tie is by weight.
            assert!(
                few < 150 || balance == Balance::LeastRequests,
                "{balance:?}: {few}"
            );
        }
        endpoints[1].set_share(100);
        assert_eq!(counts(Balance::RoundRobin, &among(&endpoints), 10), [5, 5]);
    }

    #[test]
    fn the_hash_follows_weights() {
        let endpoints = endpoints(&[3, 1]);
        let counts = counts(Balance::ConsistentHash, &among(&endpoints), 8000);
        assert!((5800..6200).contains(&counts[0]), "{counts:?}");
    }

    proptest! {
        #[test]
        fn only_the_keys_of_a_lost_endpoint_move(count in 2_usize..20, lost: prop::sample::Index, keys: [u64; 32]) {
            let endpoints = endpoints(&vec![1; count]);
            let lost = lost.index(count);
            let mut turn = Turn::default();
            for key in keys {
                let all = among(&endpoints);
                let rest = Choice { tried: &[lost], ..all };
                let before = turn.pick(Balance::ConsistentHash, &all, Some(key), || 0);
                let after = turn.pick(Balance::ConsistentHash, &rest, Some(key), || 0);
                prop_assert!(before == after || before == Some(lost));
                prop_assert!(after.is_some() && after != Some(lost));
            }
        }
    }
}
