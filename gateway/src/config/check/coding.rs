//! `compress` and `decompress` of a route.

use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::Wrong;
use crate::config::model::{Coding, Compress};
use crate::config::raw::Value;
use crate::config::scalar::{choice, truth, within};
use crate::config::units;

const CODINGS: [(&str, Coding); 3] = [
    ("zstd", Coding::Zstd),
    ("br", Coding::Brotli),
    ("gzip", Coding::Gzip),
];

/// `true`, or a mapping.
pub(super) fn compress(walk: &mut Walk, route: &mut Table<'_>) -> Option<Compress> {
    let field = route.get(walk, "compress")?;
    let standard = Compress {
        codings: CODINGS.map(|(_, coding)| coding).to_vec(),
        min_bytes: defaults::COMPRESS_MIN_BYTES,
    };
    if !matches!(field.node.value, Value::Map(_)) {
        return walk.value(&field, truth)?.then_some(standard);
    }
    walk.table(&field, |walk, table| {
        let mut codings: Vec<Coding> = Vec::new();
        for item in table.list(walk, "codings") {
            let Some(coding) = walk.value(&item, choice(&CODINGS)) else {
                continue;
            };
            if codings.contains(&coding) {
                walk.fault(&item, Wrong::new("this coding is given twice"));
            }
            codings.push(coding);
        }
        let size = within(0..=1 << 30, units::size, units::show_size);
        Compress {
            codings: if codings.is_empty() {
                standard.codings
            } else {
                codings
            },
            min_bytes: table.value_or(walk, "min_bytes", standard.min_bytes, size),
        }
    })
}

/// `decompress: {max: 10MiB}`.
pub(super) fn decompress(walk: &mut Walk, route: &mut Table<'_>) -> Option<u64> {
    let field = route.get(walk, "decompress")?;
    walk.table(&field, |walk, table| {
        let max = table.require(walk, "max", "such as max: 10MiB")?;
        walk.value(&max, within(1..=1 << 40, units::size, units::show_size))
    })?
}
