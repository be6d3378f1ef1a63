//! Who is dropped most, and why, in bounded memory: the space-saving algorithm (Metwally, Agrawal, El Abbadi, 2005).
//!
//! While there are fewer sources than counters, the counts are exact for what was sampled. After that a new source takes
//! over the smallest counter with what it had counted, which is remembered as how far too large the count may be. Whoever
//! has more than one part in as many as there are counters is certain to be among them.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::admin::api::Sighting;
use crate::cli::render;

/// Counters kept, at most.
const COUNTERS: usize = 10_000;

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: Option<IpAddr>,
    reason: String,
    verdict: String,
}

#[derive(Clone, Debug)]
struct Counter {
    key: Key,
    count: u64,
    too_large_by: u64,
    /// Counted since the last table.
    news: u64,
}

/// The counters since the watch began.
#[derive(Debug)]
pub struct Top {
    rows: usize,
    most: usize,
    /// Time between two samples on one processor, at the least.
    pub every_ns: u64,
    /// Samples lost on the way since the last table.
    pub lost: u64,
    sampled: u64,
    all: u64,
    counters: Vec<Counter>,
    places: HashMap<Key, usize>,
    /// Counts with the places that have them, the smallest first.
    order: BTreeSet<(u64, usize)>,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// These are samples: `gateway status` has the true numbers.
    pub sample: bool,
    /// At most one sample in so many nanoseconds on each processor.
    pub every_ns: u64,
    /// Samples since the last table.
    pub sampled: u64,
    /// Samples since the watch began.
    pub sampled_in_all: u64,
    /// Samples that came faster than they were taken, since the last table.
    pub lost: u64,
    pub top: Vec<Row>,
}

/// One source and one reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Absent for frames that ended before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    pub reason: String,
    pub verdict: String,
    /// Samples since the last table.
    pub count: u64,
    /// Samples since the watch began.
    pub in_all: u64,
    /// How far `in_all` may be too large.
    pub too_large_by: u64,
}

impl Top {
    /// Counts for tables of `rows`.
    pub fn new(rows: usize) -> Self {
        Self::with(rows, COUNTERS)
    }

    fn with(rows: usize, most: usize) -> Self {
        Self {
            rows,
            most,
            every_ns: 0,
            lost: 0,
            sampled: 0,
            all: 0,
            counters: Vec::new(),
            places: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Counts one.
    pub fn count(&mut self, sighting: &Sighting) {
        self.sampled += 1;
        self.all += 1;
        let key = Key {
            source: sighting.source,
            reason: sighting.reason.clone(),
            verdict: sighting.verdict.clone(),
        };
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.place(key),
        };
        let counter = &mut self.counters[place];
        self.order.remove(&(counter.count, place));
        counter.count += 1;
        counter.news += 1;
        self.order.insert((counter.count, place));
    }

    /// A counter for a new key: a free one, or else the smallest.
    fn place(&mut self, key: Key) -> usize {
        let smallest = self.order.first().copied();
        let fresh = |count| Counter {
            key: key.clone(),
            count,
            too_large_by: count,
            news: 0,
        };
        let place = match smallest {
            Some((count, place)) if self.counters.len() >= self.most => {
                let old = std::mem::replace(&mut self.counters[place], fresh(count));
                self.places.remove(&old.key);
                place
            }
            _ => {
                self.counters.push(fresh(0));
                self.counters.len() - 1
            }
        };
        self.places.insert(key, place);
        place
    }

    /// Whether anything came since the last table.
    pub fn has_news(&self) -> bool {
        self.sampled > 0 || self.lost > 0
    }

    /// The table of now: first who was met most since the last one.
    pub fn take(&mut self, time_ms: u64) -> Table {
        let mut places: Vec<usize> = (0..self.counters.len()).collect();
        let rank = |place: &usize| {
            let counter = &self.counters[*place];
            (
                std::cmp::Reverse((counter.news, counter.count)),
                counter.key.source,
            )
        };
        let rows = self.rows.min(places.len());
        if rows < places.len() {
            places.select_nth_unstable_by_key(rows, rank);
        }
        places.truncate(rows);
        places.sort_unstable_by_key(rank);
        let row = |place: &usize| {
            let counter = &self.counters[*place];
            Row {
                source: counter.key.source,
                reason: counter.key.reason.clone(),
                verdict: counter.key.verdict.clone(),
                count: counter.news,
                in_all: counter.count,
                too_large_by: counter.too_large_by,
            }
        };
        let top = places.iter().map(row).collect();
        for counter in &mut self.counters {
            counter.news = 0;
        }
        Table {
            time_ms,
            sample: true,
            every_ns: self.every_ns,
            sampled: std::mem::take(&mut self.sampled),
            sampled_in_all: self.all,
            lost: std::mem::take(&mut self.lost),
            top,
        }
    }
}

impl Table {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}  {} sampled, {} in all; {}",
            render::utc(self.time_ms),
            self.sampled,
            self.sampled_in_all,
            render::sample(self.every_ns)
        );
        if self.lost > 0 {
            let _ = writeln!(
                out,
                "{} more came faster than they were taken, and are not counted",
                self.lost
            );
        }
        let cells = self.top.iter().map(|row| {
            let about = if row.too_large_by > 0 {
                format!("{} (at most {} less)", row.in_all, row.too_large_by)
            } else {
                row.in_all.to_string()
            };
            [
                row.source
                    .map_or_else(|| "-".to_owned(), |source| source.to_string()),
                render::clean(&row.reason),
                render::clean(&row.verdict),
                row.count.to_string(),
                about,
            ]
        });
        out.push_str(&render::table(
            ["SOURCE", "REASON", "VERDICT", "NOW", "IN ALL"],
            cells,
        ));
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(source: u32) -> Sighting {
        Sighting {
            time_ms: 0,
            verdict: "drop".to_owned(),
            reason: "denied".to_owned(),
            source: Some(IpAddr::V4(source.into())),
            protocol: None,
            port: None,
            length: 60,
            interface: "eth0".to_owned(),
        }
    }

    #[test]
    fn few_sources_are_counted_exactly_and_the_loudest_of_now_comes_first() {
        let mut top = Top::with(2, 100);
        for (source, times) in [(1, 9), (2, 3), (3, 1)] {
            (0..times).for_each(|_| top.count(&seen(source)));
        }
        let table = top.take(0);
        let counts: Vec<_> = table
            .top
            .iter()
            .map(|row| (row.count, row.in_all, row.too_large_by))
            .collect();
        assert_eq!(counts, [(9, 9, 0), (3, 3, 0)]);
        assert_eq!((table.sampled, table.sampled_in_all), (13, 13));
        assert!(!top.has_news());
        (0..2).for_each(|_| top.count(&seen(3)));
        let table = top.take(0);
        assert_eq!(table.top[0].source, seen(3).source);
        assert_eq!((table.top[0].count, table.top[0].in_all), (2, 3));
        assert_eq!((table.top[1].count, table.top[1].in_all), (0, 9));
        assert_eq!((table.sampled, table.sampled_in_all), (2, 15));
    }

    #[test]
    fn one_source_is_counted_apart_for_each_reason_and_verdict() {
        let mut top = Top::with(10, 100);
        let mut other = seen(1);
        other.verdict = "observed".to_owned();
        [seen(1), other, seen(1)].iter().for_each(|seen| top.count(seen));
        assert_eq!(top.take(0).top.len(), 2);
    }

    #[test]
    fn a_flood_of_made_up_sources_neither_fills_the_memory_nor_hides_the_loud_one() {
        let mut top = Top::with(3, 50);
        let mut made_up = 1_000_u32;
        for _ in 0..5_000 {
            top.count(&seen(7));
            for _ in 0..9 {
                made_up += 1;
                top.count(&seen(made_up));
            }
        }
        assert!(top.counters.len() == 50 && top.places.len() == 50 && top.order.len() == 50);
        let table = top.take(0);
        let first = &table.top[0];
        assert_eq!(first.source, seen(7).source);
        assert!(
            first.in_all >= 5_000 && first.in_all - first.too_large_by <= 5_000,
            "{first:?}"
        );
        let sum: u64 = top.counters.iter().map(|counter| counter.count).sum();
        assert_eq!(sum, 50_000, "each sample is counted once, for somebody");
        assert!(table.text().contains("less)"), "{}", table.text());
    }
}
