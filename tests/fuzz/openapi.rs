//! Any text as an OpenAPI document, and any JSON held against what it describes.
#![no_main]

use std::path::Path;

use gateway::config::openapi::Contract;
use gateway::http::shape::strict;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (document, body) = match data.iter().position(|b| *b == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"{\"a\":[1,null,\"x\"]}"[..]),
    };
    let Ok(document) = std::str::from_utf8(document) else {
        return;
    };
    let value = strict::parse(body, 64);
    if let Ok(value) = &value {
        // Read strictly or not, what is read is the same.
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(body).ok().as_ref(),
            Some(value)
        );
    }
    let Ok(contract) = Contract::parse(document, Path::new("/nonexistent")) else {
        return;
    };
    let path: Vec<String> = String::from_utf8_lossy(body)
        .split('/')
        .map(str::to_owned)
        .collect();
    let _ = contract.find(&path);
    let Ok(value) = value else { return };
    for operation in &contract.operations {
        let content = operation.body.iter().flat_map(|body| &body.content);
        for validator in content.filter_map(|content| content.schema.as_ref()) {
            let mut faults = 0;
            validator.faults(&value, |_, _| faults += 1);
            assert_eq!(validator.takes(&value), faults == 0);
        }
    }
});
