use std::path::Path;

use serde_json::json;

use super::*;
use crate::config::openapi::Contract;

fn contract() -> Contract {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openapi/orders.yaml");
    Contract::load(&file).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn a_text_is_read_for_what_its_schema_takes() {
    let number = Kinds {
        number: true,
        ..Kinds::default()
    };
    let either = Kinds {
        number: true,
        text: true,
        ..Kinds::default()
    };
    let first = |kinds: &Kinds, text: &str| scalars(kinds, text.to_owned());
    assert_eq!(first(&number, "1"), [json!(1)]);
    assert_eq!(first(&number, "1.0"), [json!(1.0)]);
    for no_number in ["", " 1", "1 ", "01", "+1", "0x1", "NaN", "1e999", "[1]", "null"] {
        assert_eq!(
            first(&number, no_number),
            [json!(no_number)],
            "told as the text that it is"
        );
    }
    assert_eq!(first(&either, "1"), [json!(1), json!("1")]);
    assert_eq!(first(&Kinds::default(), "true"), [json!("true"), json!(true)]);
}

#[test]
#[ignore = "a measurement: cargo test --release -p gateway --lib -- --ignored --nocapture one_kibibyte"]
fn one_kibibyte_takes_microseconds() {
    let contract = contract();
    let (_, operation) = contract.operation("createOrder").expect("an operation");
    let content = &operation.body.as_ref().expect("a body").content[0];
    let todo = Todo::Json(content.schema.as_ref().expect("a schema"));
    let lines: Vec<Value> = (1..13)
        .map(|n| json!({"sku": format!("article-{n}"), "quantity": n, "price": 12.5, "tags": ["a", "b"]}))
        .collect();
    let order =
        json!({"customer": {"name": "x", "mail": "x@example.com"}, "lines": lines, "note": "as ordered"});
    let text = order.to_string();
    let rounds = 50_000_u32;
    let begun = std::time::Instant::now();
    for _ in 0..rounds {
        let judged = body(&todo, std::hint::black_box(text.as_bytes()), 64);
        assert!(std::hint::black_box(judged).is_ok());
    }
    println!("{} bytes: {:?}", text.len(), begun.elapsed() / rounds);
}
