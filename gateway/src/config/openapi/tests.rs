//! What a document may refer to, and what is told of one that is not good.

use std::path::Path;

use super::Contract;

fn told(document: &str, root: &Path) -> String {
    match Contract::parse(document, root) {
        Ok(_) => "good".to_owned(),
        Err(fault) => fault.to_string(),
    }
}

fn body(schema: &str) -> String {
    format!(
        r##"{{"openapi": "3.1.0", "paths": {{"/a": {{"post": {{"requestBody": {{"content": {{"application/json": {{"schema": {schema}}}}}}}, "responses": {{}}}}}}}}}}"##
    )
}

#[test]
fn references_never_leave_the_directory() {
    let outer = tempfile::tempdir().expect("a directory");
    let root = outer.path().canonicalize().expect("a path").join("api");
    std::fs::create_dir_all(root.join("below")).expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).expect("a file");
    write("../secret.yaml", "type: string\n");
    write("below/good.yaml", "A: {$ref: \"../other.yaml#/B\"}\n");
    write("other.yaml", "B: {type: string}\n");
    std::os::unix::fs::symlink(root.join("../secret.yaml"), root.join("link.yaml")).expect("a link");
    let reference = |to: &str| told(&body(&format!(r#"{{"$ref": "{to}"}}"#)), &root);
    assert_eq!(reference("below/good.yaml#/A"), "good");
    assert_eq!(
        reference("#/paths"),
        "good",
        "whatever it is, it is in the document"
    );
    for (outside, why) in [
        ("../secret.yaml", "leaves the directory"),
        ("below/../../secret.yaml", "leaves the directory"),
        ("link.yaml", "leaves the directory"),
        ("/etc/passwd", "not fetched"),
        ("http://127.0.0.1:9/x.yaml", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("//host/x", "not fetched"),
        ("nobody.yaml", "can not be read"),
        ("#anchor", "anchor"),
        ("#/nothing/here", "nothing"),
        ("other.yaml#/C", "nothing"),
    ] {
        let said = reference(outside);
        assert!(said.contains(why), "{outside}: {said}");
    }
}

#[test]
fn cycles_are_no_matter_and_chains_end() {
    let root = Path::new("/nonexistent");
    let cycle = r##"{"openapi": "3.1.0", "paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}, "responses": {}}}},
        "components": {"schemas": {"A": {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/A"}, "b": {"$ref": "#/components/schemas/B"}}}, "B": {"allOf": [{"$ref": "#/components/schemas/A"}]}}}}"##;
    let contract = Contract::parse(cycle, root).unwrap_or_else(|fault| panic!("{fault}"));
    let body = contract.operations[0].body.as_ref().expect("a body");
    let schema = body.content[0].schema.as_ref().expect("a schema");
    assert!(schema.takes(&serde_json::json!({"a": {"b": {"a": {}}}})));
    assert!(!schema.takes(&serde_json::json!({"a": {"b": {"a": 1}}})));
    let chain = r##"{"openapi": "3.0.0", "paths": {"/a": {"parameters": [{"$ref": "#/components/parameters/P"}]}}, "components": {"parameters": {"P": {"$ref": "#/components/parameters/P"}}}}"##;
    assert!(told(chain, root).contains("on and on"), "{}", told(chain, root));
}

#[test]
fn what_is_wrong_with_a_document_is_told_with_its_place() {
    let root = Path::new("/nonexistent");
    for (document, said) in [
        ("", "no OpenAPI document"),
        ("swagger: '2.0'", "no OpenAPI document"),
        ("openapi: 3.2.0", "not 3.0 or 3.1"),
        ("openapi: 3.0.0", "has no paths"),
        (
            "openapi: 3.0.0\npaths: {a: {}}",
            "#/paths/a: is not a path template",
        ),
        ("openapi: 3.0.0\npaths: {/a/{id}: {get: {}}}", "line 2"),
        (
            "openapi: 3.0.0\npaths: {\"/a/{id}\": {get: {responses: {}}}}",
            "{id} is not among the parameters",
        ),
        (
            "openapi: 3.0.0\npaths: {/a: {get: {responses: {}}, get: {responses: {}}}}",
            "given twice",
        ),
        (
            "openapi: 3.0.0\npaths: {/a: {get: {parameters: [{in: body, name: x}]}}}",
            "#/paths/~1a/get/parameters/0: is in no part",
        ),
        (
            "openapi: 3.0.0\npaths: {/a: {get: {responses: {7: {}}}}}",
            "is no status",
        ),
    ] {
        let told = told(document, root);
        assert!(told.contains(said), "{document}: {told}");
    }
    for (schema, said) in [
        (r#"{"pattern": "(?=a)b"}"#, "linear time"),
        (r#"{"pattern": "(a)\\1"}"#, "linear time"),
        (r#"{"type": "no-such-type"}"#, "does not compile"),
        (r#"{"$dynamicRef": "\#x"}"#, "not supported"),
        ("7", "is not a schema"),
    ] {
        let told = told(&body(&schema.replace("\\#", "#")), root);
        assert!(told.contains(said), "{schema}: {told}");
    }
    let deep = "{\"not\": ".repeat(100) + "{}" + &"}".repeat(100);
    assert!(
        told(&body(&deep), root).contains("nested"),
        "{}",
        told(&body(&deep), root)
    );
}

#[test]
fn t57_patterns_take_linear_time() {
    let contract = Contract::parse(
        &body(r#"{"type": "string", "pattern": "^(a+)+$"}"#),
        Path::new("/"),
    )
    .expect("a document");
    let content = &contract.operations[0].body.as_ref().expect("a body").content[0];
    let text = serde_json::json!("a".repeat(100_000) + "!");
    let begun = std::time::Instant::now();
    assert!(!content.schema.as_ref().expect("a schema").takes(&text));
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
}
