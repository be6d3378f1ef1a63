//! Any bytes as a PROXY header: a verdict within the bound, the same however they are cut, and none that changes when more
//! comes.
#![no_main]

use gateway::net::proxy_protocol::{Header, MOST, Parsed, Version, encode, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let verdict = parse(data);
    // The first beginning that is more than a beginning decides.
    let first = (0..=data.len().min(MOST)).find_map(|cut| match parse(&data[..cut]) {
        Ok(Parsed::Partial) => None,
        decided => Some(decided),
    });
    match (verdict, first) {
        (Ok(Parsed::Partial), None) => assert!(data.len() < MOST),
        (decided, Some(first)) => assert_eq!(decided.is_ok(), first.is_ok()),
        (decided, None) => panic!("{decided:?}, but no beginning is decided"),
    }
    if let Ok(Parsed::Whole { header, length }) = verdict {
        assert_eq!(parse(&data[..length]), verdict);
        let written = encode(Version::V2, &header);
        let Ok(Parsed::Whole { header: again, .. }) = parse(&written) else {
            panic!("{written:?}");
        };
        assert_eq!(matches!(again, Header::Direct), matches!(header, Header::Direct));
    }
});
