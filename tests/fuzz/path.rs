//! Any text as a path: one form or none, which is its own form, stays below the root and means what was asked for.
#![no_main]

use gateway::config::model::Paths;
use gateway::http::path::canonical;
use libfuzzer_sys::fuzz_target;

/// What a server makes of a path: cut at its slashes, decoded once, dots resolved. `None` above the root.
fn meaning(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for segment in path.split(|b| *b == b'/').skip(1) {
        let (mut out, mut rest) = (Vec::new(), segment);
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after) {
                (b'%', [high, low, left @ ..]) => {
                    let digit = |b: u8| char::from(b).to_digit(16).expect("whole triplets");
                    out.push((digit(*high) * 16 + digit(*low)) as u8);
                    rest = left;
                }
                _ => out.push(byte),
            }
        }
        match out.as_slice() {
            b"" | b"." => {}
            b".." => drop(kept.pop()?),
            _ => kept.push(out),
        }
    }
    Some(kept)
}

fuzz_target!(|path: &str| {
    for bits in 0..4 {
        let paths = Paths {
            keep_encoded_slashes: bits & 1 != 0,
            refuse_parameters: bits & 2 != 0,
        };
        let Ok(once) = canonical(path, paths) else {
            continue;
        };
        assert!(once.starts_with('/') && !once.contains("//"));
        assert!(once.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'));
        assert!(!paths.refuse_parameters || !once.contains(';') && !once.contains("%3B"));
        assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
        assert_eq!(canonical(&once, paths).as_deref(), Ok(&*once));
        assert_eq!(meaning(once.as_bytes()), meaning(path.as_bytes()));
        let loose = once.replace("%2F", "/").replace("%5C", "/");
        assert!(
            meaning(loose.as_bytes()).is_some(),
            "{loose} climbs above the root"
        );
    }
});
