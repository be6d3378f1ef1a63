//! Counts of quotas as bytes, for a file that outlives the process. Owns the form; does no I/O.
//!
//! A line of JSON tells what follows it: sixteen bytes a caller, hash and number in little endian. A checksum is the end.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the first line begins with: the form's own name and version.
const FORM: &str = "gateway quotas 1";
/// More than any file that was written by this: hashes of 64 MiB of memory.
pub const MOST_BYTES: u64 = 80 << 20;

/// All counts of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub seed: [u8; 16],
    pub quotas: Vec<Entry>,
}

/// The counts of one quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whose they are and what makes a caller: counts are good for no other.
    pub owner: String,
    /// What callers have who are not among the counts.
    pub floor: u64,
    /// Hash and number of each caller.
    pub counts: Vec<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    form: String,
    seed: [u8; 16],
    quotas: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    owner: String,
    floor: u64,
    callers: usize,
}

impl Ledger {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let part = |entry: &Entry| Part {
            owner: entry.owner.clone(),
            floor: entry.floor,
            callers: entry.counts.len(),
        };
        let head = Head {
            form: FORM.to_owned(),
            seed: self.seed,
            quotas: self.quotas.iter().map(part).collect(),
        };
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.push(b'\n');
        for (hash, number) in self.quotas.iter().flat_map(|entry| &entry.counts) {
            bytes.extend_from_slice(&hash.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// What [`Ledger::encode`] wrote; `None` if a single bit is another.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(body)[..] != sum[..] {
            return None;
        }
        let end = body.iter().position(|b| *b == b'\n')?;
        let (head, rest) = (body.get(..end)?, body.get(end + 1..)?);
        let head: Head = serde_json::from_slice(head).ok()?;
        if head.form != FORM {
            return None;
        }
        let (cells, odd) = rest.as_chunks::<16>();
        if !odd.is_empty() {
            return None;
        }
        let mut cells = cells.iter();
        let mut quotas = Vec::with_capacity(head.quotas.len());
        for part in head.quotas {
            let mut counts = Vec::new();
            for cell in cells.by_ref().take(part.callers) {
                let (hash, number) = cell.split_first_chunk::<8>()?;
                let number = number.first_chunk::<8>()?;
                counts.push((u64::from_le_bytes(*hash), u64::from_le_bytes(*number)));
            }
            if counts.len() != part.callers {
                return None;
            }
            quotas.push(Entry {
                owner: part.owner,
                floor: part.floor,
                counts,
            });
        }
        let whole = cells.next().is_none();
        whole.then_some(Self {
            seed: head.seed,
            quotas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_is_damaged_is_not() {
        let ledger = Ledger {
            seed: [7; 16],
            quotas: vec![
                Entry {
                    owner: "route \"r\"\n".into(),
                    floor: 3,
                    counts: vec![(1, 2), (u64::MAX, 10)],
                },
                Entry::default(),
            ],
        };
        let bytes = ledger.encode();
        assert_eq!(Ledger::decode(&bytes), Some(ledger));
        for at in 0..bytes.len() {
            assert_eq!(Ledger::decode(&bytes[..at]), None, "cut at {at}");
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Ledger::decode(&bad), None, "changed at {at}");
        }
    }
}
