//! Any text changed by pointer: what comes out is JSON of the same meaning but for the change, or nothing does.
#![no_main]

use gateway::config::model::{JsonEdit, JsonTemplate, Pointer};
use gateway::http::shape::{form, json, strict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (pointer, text) = text.split_once('\n').unwrap_or(("/a/0", text));
    let Some(pointer) = Pointer::read(pointer) else {
        return;
    };
    let edit = |edits: &[JsonEdit]| json::edit(text, edits, 32, |_| None);
    if let Ok(same) = edit(&[]) {
        assert_eq!(same, text.trim_matches([' ', '\t', '\r', '\n']));
    }
    let set = JsonEdit::Set {
        at: pointer.clone(),
        value: JsonTemplate::Literal("{\"new\":1}".into()),
    };
    for edits in [
        vec![set],
        vec![JsonEdit::Remove(pointer.clone())],
        vec![JsonEdit::Rename {
            at: pointer,
            to: "b".into(),
        }],
    ] {
        if let (Ok(out), Ok(_)) = (edit(&edits), strict::parse(text.as_bytes(), 32)) {
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        }
    }
    if let Ok(made) = form::to_json(text) {
        assert!(strict::parse(made.as_bytes(), 32).is_ok(), "{made}");
    }
});
