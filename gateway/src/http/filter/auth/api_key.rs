//! Callers known by a secret.
//!
//! Only hashes are kept. A presented key is hashed and its hash looked up; what the time of the look-up could tell is
//! something about the hash of a guess, not about a key, and the last comparison takes the same time for all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::place::{Found, find};
use super::{Call, Identity, Verdict};
use crate::config::model::{ApiKeyAuth, Key, Keys, Place};

/// Keys, and where a request has one.
#[derive(Debug)]
pub(super) struct ApiKey {
    place: Place,
    keys: Table,
}

impl ApiKey {
    pub(super) fn new(model: &ApiKeyAuth) -> Self {
        Self {
            place: model.place.clone(),
            keys: Table::new(&model.keys),
        }
    }

    pub(super) fn check(&self, call: Call<'_>) -> Verdict {
        let key = match find(&self.place, call.head) {
            Found::None => return Verdict::Missing,
            Found::Several => return Verdict::Invalid,
            Found::One(key) => key,
        };
        match self.keys.find(&Sha256::digest(&key).into()) {
            Some(holder) if holder.expires.is_none_or(|end| call.local.now() < end) => {
                Verdict::Known(Arc::clone(&holder.identity))
            }
            _ => Verdict::Invalid,
        }
    }
}

/// Hashes, sorted, in so many even parts that one of them holds an entry or two: hashes are evenly spread, so a look-up
/// costs the same whether there are ten or a hundred thousand.
#[derive(Debug)]
struct Table {
    hashes: Box<[[u8; 32]]>,
    holders: Box<[Holder]>,
    /// Where each part begins, and where the last one ends.
    starts: Box<[u32]>,
}

#[derive(Debug)]
struct Holder {
    identity: Arc<Identity>,
    expires: Option<u64>,
}

/// What keys of one holder have in common.
type Same<'k> = (&'k str, &'k [String], &'k BTreeMap<String, String>);

impl Table {
    fn new(keys: &Keys) -> Self {
        let parts = keys.len().next_power_of_two().clamp(1, 1 << 22);
        let mut starts = vec![0_u32; parts + 1];
        for hash in keys.keys() {
            starts[Self::part(hash, parts) + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // Most holders have several keys that differ in nothing else.
        let mut made: HashMap<Same<'_>, Arc<Identity>> = HashMap::new();
        let holders = keys.values().map(|key| Holder {
            identity: Arc::clone(
                made.entry((&key.name, &key.scopes, &key.labels))
                    .or_insert_with(|| Arc::new(identity(key))),
            ),
            expires: key.expires,
        });
        Self {
            holders: holders.collect(),
            hashes: keys.keys().copied().collect(),
            starts: starts.into(),
        }
    }

    /// `parts` is a power of two.
    fn part(hash: &[u8; 32], parts: usize) -> usize {
        let front = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) as usize;
        (front * parts) >> 32
    }

    fn find(&self, hash: &[u8; 32]) -> Option<&Holder> {
        let part = Self::part(hash, self.starts.len() - 1);
        let (from, to) = (*self.starts.get(part)?, *self.starts.get(part + 1)?);
        let (mut known, mut at) = (Choice::from(0), 0);
        for (index, other) in (from..to).zip(self.hashes.get(from as usize..to as usize)?) {
            let same = other.ct_eq(hash);
            known |= same;
            at.conditional_assign(&index, same);
        }
        self.holders.get(at as usize).filter(|_| bool::from(known))
    }
}

fn identity(key: &Key) -> Identity {
    let label = |(name, value): (&String, &String)| (name.clone(), Value::from(value.as_str()));
    Identity {
        scopes: key.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        claims: key.labels.iter().map(label).collect::<Map<_, _>>(),
        ..Identity::named(&key.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::filter::Local;

    fn hash(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 1_000, 4_097] {
            let key = |i| Key {
                name: format!("holder-{i}"),
                ..Key::default()
            };
            let table = Table::new(&(0..count).map(|i| (hash(&format!("key-{i}")), key(i))).collect());
            for i in 0..count {
                let holder = table.find(&hash(&format!("key-{i}"))).expect("a key");
                assert_eq!(*holder.identity.name, format!("holder-{i}"));
            }
            for i in 0..2_000 {
                assert!(table.find(&hash(&format!("other-{i}"))).is_none());
            }
            for edge in [[0; 32], [255; 32]] {
                assert!(table.find(&edge).is_none());
            }
        }
    }

    #[test]
    fn t36_a_hash_that_differs_in_one_bit_is_another() {
        let good = hash("k");
        let table = Table::new(&[(good, Key::default())].into());
        for bit in 0..256 {
            let mut other = good;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(table.find(&other).is_none(), "{bit}");
        }
        assert!(table.find(&good).is_some());
    }

    #[test]
    fn the_right_key_is_known_until_it_expires() {
        let local = Local::default();
        let model = |expires| {
            let key = Key {
                name: "a".into(),
                scopes: vec!["read".into()],
                expires,
                labels: [("tenant".into(), "t".into())].into(),
            };
            ApiKey::new(&ApiKeyAuth {
                place: Place::Header(http::HeaderName::from_static("x-api-key")),
                keep: false,
                keys: Arc::new([(hash("right"), key)].into()),
                file: None,
            })
        };
        let ask = |way: &ApiKey, presented: &[&str]| {
            let mut request = http::Request::new(());
            for key in presented {
                request.headers_mut().append("x-api-key", key.parse().unwrap());
            }
            let (head, ()) = request.into_parts();
            way.check(Call {
                head: &head,
                local: &local,
                taken: &[],
            })
        };
        let Verdict::Known(who) = ask(&model(None), &["right"]) else {
            panic!("known")
        };
        assert_eq!(&*who.name, "a");
        assert!(who.has_scope("read"));
        assert_eq!(who.claim("tenant"), Some(&Value::from("t")));
        assert!(matches!(
            ask(&model(Some(local.now() + 60)), &["right"]),
            Verdict::Known(_)
        ));
        assert!(matches!(
            ask(&model(Some(local.now())), &["right"]),
            Verdict::Invalid
        ));
        assert!(matches!(ask(&model(None), &[]), Verdict::Missing));
        for bad in [
            &["wrong"][..],
            &[""],
            &["right", "right"],
            &["right", "wrong"],
            &["right "],
            &["RIGHT"],
        ] {
            assert!(matches!(ask(&model(None), bad), Verdict::Invalid), "{bad:?}");
        }
    }
}
