//! Which endpoint is next. Pure but for the counters it is handed; knows nothing of connections.

use super::Endpoint;
use crate::config::model::Balance;

/// One worker's place in the turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    credit: Vec<i64>,
}

impl Turn {
    /// Picks an endpoint that is not in `tried`; `None` if there is no such one.
    ///
    /// `random` is called only by [`Balance::LeastRequests`].
    pub(super) fn pick(
        &mut self,
        balance: Balance,
        endpoints: &[Endpoint],
        tried: &[usize],
        random: impl FnMut() -> u64,
    ) -> Option<usize> {
        let open = |index: &usize| !tried.contains(index);
        if endpoints.len() - tried.len().min(endpoints.len()) <= 1 {
            return (0..endpoints.len()).find(open);
        }
        match balance {
            Balance::RoundRobin => self.round_robin(endpoints, open),
            Balance::LeastRequests => least_requests(endpoints, open, random),
        }
    }

    /// Smooth weighted round robin: everyone gains its weight, the richest is picked and pays the total. Picks of
    /// a heavy endpoint are spread out instead of coming in a row.
    fn round_robin(&mut self, endpoints: &[Endpoint], open: impl Fn(&usize) -> bool) -> Option<usize> {
        self.credit.resize(endpoints.len(), 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in (0..endpoints.len()).filter(open) {
            let weight = i64::from(endpoints[index].weight);
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

/// The less loaded of two different ones drawn by weight; load is requests in flight for each unit of weight.
fn least_requests(
    endpoints: &[Endpoint],
    open: impl Fn(&usize) -> bool,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    let mut draw = |without: Option<usize>| {
        let candidates = || (0..endpoints.len()).filter(|i| open(i) && Some(*i) != without);
        let total: u64 = candidates().map(|i| u64::from(endpoints[i].weight)).sum();
        let mut left = random().checked_rem(total)?;
        candidates().find(|i| {
            let weight = u64::from(endpoints[*i].weight);
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        })
    };
    let first = draw(None)?;
    let Some(second) = draw(Some(first)) else {
        return Some(first);
    };
    // In flight plus the request to be placed, compared as fractions without a division.
    let load = |i: usize, other: usize| {
        (u64::from(endpoints[i].in_flight()) + 1) * u64::from(endpoints[other].weight)
    };
    Some(if load(second, first) < load(first, second) {
        second
    } else {
        first
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::model;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let one = |weight: &u32| model::Endpoint {
            host: "127.0.0.1".into(),
            port: 80,
            tls: false,
            weight: NonZeroU32::new(*weight).unwrap(),
        };
        weights
            .iter()
            .map(|w| Endpoint::compile("test", &one(w)).unwrap())
            .collect()
    }

    fn counts(balance: Balance, endpoints: &[Endpoint], picks: usize) -> Vec<usize> {
        let mut turn = Turn::default();
        let mut seed = 1_u64;
        let mut counts = vec![0; endpoints.len()];
        for _ in 0..picks {
            let random = || {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                seed >> 33
            };
            counts[turn.pick(balance, endpoints, &[], random).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact_in_every_full_turn_and_smooth_within() {
        let endpoints = endpoints(&[3, 1]);
        assert_eq!(counts(Balance::RoundRobin, &endpoints, 4), [3, 1]);
        assert_eq!(counts(Balance::RoundRobin, &endpoints, 4000), [3000, 1000]);
        let mut turn = Turn::default();
        let order: Vec<_> = (0..4)
            .filter_map(|_| turn.pick(Balance::RoundRobin, &endpoints, &[], || 0))
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
        endpoints[0].in_flight.store(50, Ordering::Relaxed);
        let counts = counts(Balance::LeastRequests, &endpoints, 3000);
        assert_eq!(
            counts[0], 0,
            "one of two different candidates is always idle: {counts:?}"
        );
        assert!(counts[1] > 1200 && counts[2] > 1200, "{counts:?}");
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        let endpoints = endpoints(&[1, 100, 1]);
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            let mut turn = Turn::default();
            assert_eq!(turn.pick(balance, &endpoints, &[1, 0], || 7), Some(2));
            assert_eq!(turn.pick(balance, &endpoints, &[0, 1, 2], || 7), None);
        }
    }
}
