//! What is made of documents, odd ones as well.

use super::*;

/// What is made of each document loads, and each route is of its operation.
#[test]
fn what_is_imported_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openapi");
    for (document, count) in [("orders.yaml", 6), ("bookings.yaml", 3), ("library.json", 2)] {
        let file = directory.join(document);
        let contract = Contract::load(&file).unwrap_or_else(|fault| panic!("{document}: {fault}"));
        let made = routes(&contract, &file, "api", &directory).expect(document);
        let text = format!("{}{REST}", made.text);
        let (config, _) =
            Config::parse(&text, document, &directory).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        assert_eq!((config.routes.len(), made.refused.len()), (count, 0), "{text}");
        for route in &config.routes {
            let rule = route.validate.as_ref().expect("a rule");
            assert!(rule.operation.is_some(), "{}", route.name);
        }
    }
}

/// The document in a file, as the routes name it, and what is made of it.
fn imported(text: &str) -> std::result::Result<Taken, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("api.json");
    std::fs::write(&file, text).expect("a file");
    let contract = Contract::load(&file).expect("a document");
    routes(&contract, Path::new("api.json"), "u", directory.path())
}

/// With a parameter for each name in a path.
fn document(operations: &[(&str, &str)]) -> String {
    let mut paths = serde_json::Map::new();
    for (method, path) in operations {
        let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let parameters: Vec<_> = names
            .map(|name| serde_json::json!({"name": name, "in": "path", "required": true}))
            .collect();
        let item = paths.entry(*path).or_insert_with(|| serde_json::json!({}));
        item[*method] = serde_json::json!({"responses": {}, "parameters": parameters});
    }
    serde_json::json!({"openapi": "3.0.0", "paths": paths}).to_string()
}

#[test]
fn an_odd_path_gets_a_route_that_its_requests_come_to_or_a_reason() {
    let taken = [
        ("get", "/a b"),
        ("get", "/100%"),
        ("get", "/stra\u{df}e/{x}"),
        ("get", "/u/\u{fc}{n}"),
        ("get", "/{a}.json"),
        ("get", "/trailing/"),
        ("get", "/star/**"),
        ("get", "/star/*/{id}"),
        ("get", "/semi;v=1"),
        ("get", "/colon:act"),
        ("get", "/quote\"s"),
        ("post", "/"),
        ("get", "/m/{a}-{b}"),
    ];
    let made = imported(&document(&taken)).expect("routes");
    assert_eq!((made.count, made.refused), (taken.len(), vec![]), "{}", made.text);

    for (operations, why) in [
        (
            &[("get", "/a%20c")][..],
            "GET /a%20c: write the character itself, not its %-escape",
        ),
        (
            &[("get", "/q?x=1")],
            "GET /q?x=1: a route matches the path alone, not the query",
        ),
        (&[("trace", "/t")], "TRACE /t: the gateway serves no TRACE"),
        (
            &[("get", "/in//side")],
            "GET /in//side: no request would get there: it would be for /in/side",
        ),
        (
            &[("get", "//b")],
            "GET //b: no request would get there: it would be for /b",
        ),
        (&[("get", "/b/../up")], "GET /b/../up: "),
        (
            &[("get", "/back\\slash")],
            "GET /back\\slash: the gateway refuses every request for this path",
        ),
        (&[("get", "/d/{id}/x/{id}")], "GET /d/{id}/x/{id}: "),
        (
            &[("get", "/x/{a}"), ("get", "/x/{b}")],
            "GET /x/{b}: a request can match this route and the one at GET /x/{a}, and neither is more specific",
        ),
        (
            &[("get", "/x/{a}"), ("post", "/x/{b}")],
            "POST /x/{b}: its requests are of /x/{a} in the document",
        ),
        (
            &[("get", "/y"), ("head", "/y")],
            "HEAD /y: a request can match this route and the one at GET /y",
        ),
    ] {
        let all = [operations, &[("get", "/good")]].concat();
        let made = imported(&document(&all)).expect("routes");
        assert_eq!(
            (made.count, made.refused.len()),
            (operations.len(), 1),
            "{:?}",
            made.refused
        );
        assert!(
            made.refused[0].starts_with(why),
            "{} is not {why}",
            made.refused[0]
        );
    }
    // What is wrong with all of it is no operation's fault.
    let text = document(&[("get", "/a")]).replacen('{', r#"{"servers": [{"url": "http://h:99999/v"}], "#, 1);
    assert!(imported(&text).is_err());
}

#[test]
fn what_is_not_taken_shows_in_the_exit_code_and_nothing_is_written_of_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, out) = (
        directory.path().join("api.json"),
        directory.path().join("routes.yaml"),
    );
    let import = |operations: &[(&str, &str)]| {
        std::fs::write(&file, document(operations)).expect("a file");
        let _ = std::fs::remove_file(&out);
        let done = run(
            &OpenapiCommand::Import {
                file: file.clone(),
                out: Some(out.clone()),
                upstream: "u".to_owned(),
            },
            false,
        );
        (done.unwrap_or_else(|failed| failed.exit), out.exists())
    };
    assert_eq!(import(&[("get", "/a")]), (Exit::Done, true));
    assert_eq!(import(&[("get", "/a"), ("get", "/b//c")]), (Exit::Failed, true));
    assert_eq!(import(&[("get", "/b//c")]), (Exit::BadInput, false));
}

#[test]
fn nothing_of_a_document_gets_out_of_its_place() {
    let text = r##"{"openapi": "3.0.0", "servers": [{"url": "http://h/b\"\n- evil"}], "paths": {"/a": {"get": {
        "operationId": "x\"\nroutes: []", "security": [{"k\nupstream: evil": []}], "responses": {}}}}}"##;
    let contract = Contract::parse(text, Path::new("/nonexistent")).expect("a document");
    let all: String = contract
        .operations
        .iter()
        .map(|operation| route(&contract, operation, Path::new("a\nb"), "u\np", true))
        .collect();
    let made = head(&contract, "u\np") + &all;
    assert!(
        made.lines()
            .all(|line| line.starts_with([' ', '#']) || line == "routes:" || line == "upstreams:"),
        "{made}"
    );
    assert!(!made.contains("\nupstream: evil"), "{made}");
}
