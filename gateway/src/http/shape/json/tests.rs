use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::model::{Fact, Pointer};

fn at(pointer: &str) -> Pointer {
    Pointer::read(pointer).expect("a pointer")
}

fn set(pointer: &str, text: &str) -> JsonEdit {
    JsonEdit::Set {
        at: at(pointer),
        value: JsonTemplate::Literal(text.into()),
    }
}

fn edited(text: &str, edits: &[JsonEdit]) -> Result<String, Wrong> {
    edit(text, edits, 64, |template| match template.0.as_slice() {
        [Fact::Text(text)] => Some(text.clone()),
        _ => None,
    })
}

#[test]
fn what_is_not_named_stays_letter_by_letter() {
    let text = r#" {"a": 1.50e+10, "z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"}, "b":[1.0,-0,{"x":null}], "c" : true} "#;
    for (edits, expected) in [
        (
            vec![set("/n", "1")],
            r#"{"a":1.50e+10,"z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true,"n":1}"#,
        ),
        (
            vec![set("/z/big", "2")],
            r#"{"a":1.50e+10,"z":{"big":2,"s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true}"#,
        ),
        (
            vec![set("/new/deep/er", "[]")],
            r#"{"a":1.50e+10,"z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true,"new":{"deep":{"er":[]}}}"#,
        ),
        (
            vec![
                JsonEdit::Remove(at("/z")),
                JsonEdit::Remove(at("/b/1")),
                set("/b/-", "7"),
                set("/b/0", "8"),
            ],
            r#"{"a":1.50e+10,"b":[8,{"x":null},7],"c":true}"#,
        ),
        (
            vec![
                JsonEdit::Rename {
                    at: at("/a"),
                    to: "c".into(),
                },
                JsonEdit::Remove(at("/z")),
            ],
            r#"{"c":1.50e+10,"b":[1.0,-0,{"x":null}]}"#,
        ),
        (
            vec![
                JsonEdit::Move {
                    from: at("/z/s"),
                    to: at("/b/2/x"),
                },
                JsonEdit::Remove(at("/z")),
            ],
            r#"{"a":1.50e+10,"b":[1.0,-0,{"x":"\u00e4\/"}],"c":true}"#,
        ),
        (vec![set("", "0")], "0"),
    ] {
        assert_eq!(edited(text, &edits).as_deref(), Ok(expected), "{edits:?}");
    }
}

#[test]
fn an_edit_that_finds_no_place_changes_nothing() {
    let text = r#"{"a":1,"l":[1],"o":{}}"#;
    for edit in [
        set("/a/b", "2"),
        set("/l/1", "2"),
        set("/l/01", "2"),
        set("/l/+0", "2"),
        set("/l/x", "2"),
        JsonEdit::Remove(at("/x/y")),
        JsonEdit::Remove(at("/l/5")),
        JsonEdit::Remove(at("")),
        JsonEdit::Rename {
            at: at("/nobody"),
            to: "a".into(),
        },
        JsonEdit::Move {
            from: at("/o"),
            to: at("/o/x"),
        },
        JsonEdit::Move {
            from: at("/nobody"),
            to: at("/a"),
        },
        JsonEdit::Set {
            at: at("/a"),
            value: JsonTemplate::Text(ValueTemplate(vec![Fact::Identity])),
        },
    ] {
        assert_eq!(
            edited(text, std::slice::from_ref(&edit)).as_deref(),
            Ok(text),
            "{edit:?}"
        );
    }
}

#[test]
fn what_is_to_be_taken_out_of_an_object_does_not_get_through_in_a_list() {
    let remove = |pointer| JsonEdit::Remove(at(pointer));
    let moved = |from, to| JsonEdit::Move {
        from: at(from),
        to: at(to),
    };
    for text in ["7", "null", "\"a\"", "[]", "[{\"a\":1}]"] {
        for edit in [
            remove("/a"),
            set("/a/b", "1"),
            moved("/a", "/b"),
            moved("/0", "/b"),
        ] {
            let edits = [edit];
            assert_eq!(edited(text, &edits), Err(Wrong::Shape), "{text} {edits:?}");
        }
    }
    assert_eq!(
        edited("[{\"a\":1}]", &[remove("/0/a"), set("/-", "2")]).as_deref(),
        Ok("[{},2]")
    );
    // What an edit has made of the whole is what the next one meets.
    assert_eq!(
        edited("[]", &[set("", "{}"), set("/a", "1")]).as_deref(),
        Ok("{\"a\":1}")
    );
}

#[test]
fn names_and_values_are_escaped_and_pointers_unescaped() {
    let value = JsonTemplate::Map(vec![(
        "q\"".into(),
        JsonTemplate::List(vec![JsonTemplate::Text(ValueTemplate(vec![Fact::Text(
            "a\"\n\u{1}".into(),
        )]))]),
    )]);
    let edits = [JsonEdit::Set {
        at: at("/a~1b~0c"),
        value,
    }];
    assert_eq!(
        edited("{}", &edits).as_deref(),
        Ok(r#"{"a/b~c":{"q\"":["a\"\n\u0001"]}}"#)
    );
    assert_eq!(
        edited(r#"{"\u0061":1}"#, &[set("/a", "2")]).as_deref(),
        Ok(r#"{"a":2}"#)
    );
}

#[test]
fn t29_what_is_no_json_or_too_deep_or_ambiguous_is_refused() {
    let one = [set("/a/b", "1")];
    for bad in [
        "",
        "{",
        "{\"a\":}",
        "[1,]",
        "{} {}",
        "nul",
        "{\"a\" 1}",
        "'a'",
        "{\"a\":01}",
    ] {
        assert_eq!(edited(bad, &one), Err(Wrong::Syntax), "{bad}");
    }
    assert_eq!(edited(r#"{"a":1,"a":2}"#, &one), Err(Wrong::Twice));
    assert_eq!(edited(r#"{"a":1,"\u0061":2}"#, &one), Err(Wrong::Twice));
    assert_eq!(edited(r#"{"a":{"b":1,"b":2}}"#, &one), Err(Wrong::Twice));
    let many: Vec<String> = (0..40).map(|n| format!("\"m{}\":1", n % 39)).collect();
    assert_eq!(
        edited(&format!("{{{}}}", many.join(",")), &one),
        Err(Wrong::Twice)
    );
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let first = [set("/0", "1")];
    assert!(edited(&deep(64), &first).is_ok());
    assert_eq!(edited(&deep(65), &first), Err(Wrong::Depth));
    assert_eq!(edited(&"[".repeat(1 << 20), &one), Err(Wrong::Depth));
    assert!(edited(r#"{"a":"[[[[\"[[["}"#, &one).is_ok() && depth(r#"["[\"[["]"#, 1).is_ok());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-c\"\\\\/~ä\n]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c~/0]{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What serde_json makes of the same edits on a tree of its own.
    #[test]
    fn the_text_means_what_the_tree_says(mut tree in value(), new in value(), steps in proptest::collection::vec("[a-c0-2-]{1}", 0..4)) {
        let text = tree.to_string();
        let pointer = Pointer(steps.clone());
        let kept = edited(&text, &[]).expect("JSON");
        prop_assert_eq!(&kept, &text);
        let whole = match (&tree, steps.first().map(String::as_str)) {
            (_, None) | (Value::Object(_), _) => true,
            (Value::Array(_), Some(step)) => !("a"..="c").contains(&step),
            _ => false,
        };
        if !whole {
            prop_assert_eq!(edited(&text, &[JsonEdit::Remove(pointer)]), Err(Wrong::Shape));
            return Ok(());
        }
        let removed = edited(&text, &[JsonEdit::Remove(pointer.clone())]).expect("JSON");
        let replaced = edited(&text, &[JsonEdit::Set { at: pointer, value: JsonTemplate::Literal(new.to_string()) }]).expect("JSON");
        let path: String = steps.iter().map(|step| format!("/{step}")).collect();
        let replaced: Value = serde_json::from_str(&replaced).expect("JSON");
        if tree.pointer(&path).is_some() {
            prop_assert_eq!(replaced.pointer(&path), Some(&new));
            *tree.pointer_mut(&path).expect("there") = new;
            prop_assert_eq!(replaced, tree);
        } else {
            prop_assert_eq!(removed, text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"a0\\\\ ]{0,40}") {
        if let Ok(out) = edited(&text, &[set("/a/0", "1"), JsonEdit::Remove(at("/0"))]) {
            let out: Result<Value, _> = serde_json::from_str(&out);
            prop_assert!(out.is_ok());
        }
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -p gateway --lib -- --ignored --nocapture four_kibibytes"]
fn four_kibibytes_take_microseconds() {
    let lines: Vec<Value> = (0..40)
        .map(|n| json!({"sku": format!("article-{n}"), "quantity": n, "price": 12.5, "note": "as ordered by phone", "tags": ["a", "b"]}))
        .collect();
    let text =
        json!({"id": 1, "customer": {"name": "x", "mail": "x@example.com"}, "lines": lines}).to_string();
    let edits = [
        set("/customer/tier", "\"gold\""),
        JsonEdit::Remove(at("/customer/mail")),
        JsonEdit::Rename {
            at: at("/id"),
            to: "number".into(),
        },
        JsonEdit::Move {
            from: at("/lines/0/note"),
            to: at("/note"),
        },
    ];
    let rounds = 20_000_u32;
    let begun = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(edited(std::hint::black_box(&text), &edits)).expect("JSON");
    }
    println!("{} bytes: {:?}", text.len(), begun.elapsed() / rounds);
}
