use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::defaults;
use crate::config::model::{SignatureKey, VerifyKey};

/// RFC 9421, B.1.2, B.1.4 and B.1.5.
const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----";
const SECRET: &str =
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
/// When all of them were made.
const CREATED: u64 = 1_618_884_473;
const DIGEST: &str =
    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

fn signature(change: impl FnOnce(&mut model::Signature)) -> Signature {
    let pem = |text| VerifyKey::from_pem(text).expect("a key").remove(0);
    let secret = VerifyKey::secret(STANDARD.decode(SECRET).expect("base64")).expect("a secret");
    let keys = [
        ("test-key-rsa-pss", Algorithm::Ps512, pem(RSA)),
        ("test-key-ed25519", Algorithm::EdDsa, pem(ED25519)),
        ("test-shared-secret", Algorithm::Hs256, secret),
    ];
    let keys = keys.map(|(id, algorithm, key)| {
        let key = SignatureKey {
            name: format!("name of {id}"),
            scopes: vec!["read".into()],
            algorithm,
            key,
        };
        (id.to_owned(), key)
    });
    let mut model = model::Signature {
        keys: keys.into(),
        cover: vec!["@authority".into()],
        body: None,
        max_age: 60,
        leeway: 30,
        nonce: false,
        tag: None,
        keep: true,
    };
    change(&mut model);
    Signature::new(&model, false)
}

/// The request of RFC 9421, B.2.
fn request(input: &str, signature: &str) -> Parts {
    let mut request = http::Request::post("/foo?param=Value&Pet=dog")
        .body(())
        .expect("a request");
    for (name, value) in [
        ("host", "example.com"),
        ("x-forwarded-proto", "https"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        ("content-digest", DIGEST),
        ("content-length", "18"),
        ("signature-input", input),
        ("signature", signature),
    ] {
        request
            .headers_mut()
            .append(name, value.parse().expect("a value"));
    }
    request.into_parts().0
}

const HMAC: (&str, &str) = (
    r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
    "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
);
const EDDSA: (&str, &str) = (
    r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
    "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
);
const PSS: (&str, &str) = (
    r#"sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
    "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
);

fn judged(way: &Signature, request: &Parts, now: u64) -> Result<String, Fault> {
    match way.judge(request, now) {
        Ok((identity, _)) => Ok(identity.name.to_string()),
        Err(fault) => Err(fault),
    }
}

#[test]
fn the_signatures_of_the_rfc_are_good_and_with_anything_else_they_are_not() {
    let way = signature(|_| {});
    for ((input, value), name) in [
        (HMAC, "test-shared-secret"),
        (EDDSA, "test-key-ed25519"),
        (PSS, "test-key-rsa-pss"),
    ] {
        let good = request(input, value);
        assert_eq!(judged(&way, &good, CREATED), Ok(format!("name of {name}")));
        let alg = format!("{input};alg=\"none\"");
        assert!(judged(&way, &request(&alg, value), CREATED).is_err());
        let mut other = good.clone();
        other
            .headers
            .insert("host", "example.org".parse().expect("a host"));
        assert_eq!(judged(&way, &other, CREATED), Err("it is not good"));
        for (from, to) in [
            ("1618884473", "1618884474"),
            ("\"@authority\"", "\"@authority\" \"@scheme\""),
        ] {
            let other = request(&input.replace(from, to), value);
            assert_eq!(judged(&way, &other, CREATED), Err("it is not good"), "{input}");
        }
    }
    // The key decides: a public key is no secret, and another's is not this one's.
    let other = HMAC.0.replace("test-shared-secret", "test-key-ed25519");
    assert_eq!(
        judged(&way, &request(&other, HMAC.1), CREATED),
        Err("it is not good")
    );
    let unknown = HMAC.0.replace("test-shared-secret", "somebody");
    assert_eq!(
        judged(&way, &request(&unknown, HMAC.1), CREATED),
        Err("its key is not known")
    );
    // Of several the first that is good counts; what stands beside it does not harm.
    let both = request(
        &format!("{unknown}, {}", EDDSA.0),
        &format!("{}, {}", HMAC.1, EDDSA.1),
    );
    assert_eq!(
        judged(&way, &both, CREATED),
        Ok("name of test-key-ed25519".into())
    );
}

#[test]
fn it_is_good_for_its_time_its_application_and_all_that_it_must_cover() {
    let way = signature(|_| {});
    let good = request(HMAC.0, HMAC.1);
    for (now, told) in [
        (CREATED - 31, Err("it is made in the future")),
        (CREATED - 30, Ok("name of test-shared-secret".to_owned())),
        (CREATED + 89, Ok("name of test-shared-secret".to_owned())),
        (CREATED + 90, Err("it is too old")),
    ] {
        assert_eq!(judged(&way, &good, now), told, "{now}");
    }
    let expired = format!("{};expires=1618884400", HMAC.0);
    assert_eq!(
        judged(&way, &request(&expired, HMAC.1), CREATED),
        Err("it is too old")
    );
    let tagged = signature(|model| model.tag = Some("header-example".into()));
    assert!(judged(&tagged, &request(PSS.0, PSS.1), CREATED).is_ok());
    assert_eq!(
        judged(&tagged, &good, CREATED),
        Err("it is made for another application")
    );
    for (cover, fits) in [
        (vec!["@method", "@path", "date"], true),
        (vec!["@query"], false),
        (vec!["@target-uri"], false),
        (vec!["content-digest"], false),
    ] {
        let strict = signature(|model| model.cover = cover.iter().map(|name| (*name).into()).collect());
        assert_eq!(
            judged(&strict, &request(EDDSA.0, EDDSA.1), CREATED).is_ok(),
            fits,
            "{cover:?}"
        );
    }
    assert!(
        signature(|model| model.cover = defaults::COVERED.map(str::to_owned).to_vec())
            .asked()
            .is_some_and(
                |asked| asked == "sig=(\"@method\" \"@authority\" \"@path\" \"@query\");created;keyid"
            )
    );
    // What stands in a parameter of the query alone does not cover the query.
    let strict = signature(|model| model.cover = vec!["@query".into()]);
    assert!(judged(&strict, &request(PSS.0, PSS.1), CREATED).is_err());
    // The body must be what is signed; where nothing that is signed speaks of one, there may be none.
    let bodies = signature(|model| model.body = Some(100));
    let expected = |(input, value)| match bodies.judge(&request(input, value), CREATED) {
        Ok((_, expected)) => expected.expect("something"),
        Err(_) => panic!("good"),
    };
    assert!(
        expected(PSS)
            .digest
            .is_some_and(|digest| digest.is_of(br#"{"hello": "world"}"#))
    );
    assert_eq!(expected(EDDSA).digest, None);
}

#[test]
fn lines_that_are_no_signature_are_refused() {
    let way = signature(|_| {});
    let sha = HMAC.1;
    for (input, value) in [
        ("", sha),
        ("sig-b25", sha),
        ("sig-b25=1", sha),
        ("sig-b25=()", sha),
        (r#"sig-b25=("@authority");keyid="test-shared-secret""#, sha),
        (r#"sig-b25=("@authority");created=1618884473"#, sha),
        (
            r#"sig-b25=("@authority");created=1618884473;keyid=test-shared-secret"#,
            sha,
        ),
        (
            r#"sig-b25=("@authority");created="1618884473";keyid="test-shared-secret""#,
            sha,
        ),
        (
            r#"sig-b25=("@authority");created=-1;keyid="test-shared-secret""#,
            sha,
        ),
        (
            r#"sig-b25=("@authority");created=1618884473.5;keyid="test-shared-secret""#,
            sha,
        ),
        (
            r#"sig-b25=("@authority");created=1618884473;keyid="test-shared-secret";nonce="""#,
            sha,
        ),
        (
            r#"sig-b25=("@authority");created=1618884473;keyid="test-shared-secret";expires=x"#,
            sha,
        ),
        (HMAC.0, "sig-b25=1"),
        (HMAC.0, "sig-b25=::"),
        (HMAC.0, "sig-b25=:%:"),
        (HMAC.0, "other=:AAAA:"),
        (HMAC.0, ""),
    ] {
        assert!(
            judged(&way, &request(input, value), CREATED).is_err(),
            "{input} {value}"
        );
    }
    let many = (0..5).map(|n| format!("a{n}=()")).collect::<Vec<_>>().join(", ");
    assert_eq!(
        judged(&way, &request(&many, sha), CREATED),
        Err("there are too many")
    );
    let mut bare = request(HMAC.0, HMAC.1);
    bare.headers.remove(SIGNATURE);
    assert_eq!(
        judged(&way, &bare, CREATED),
        Err("one of its two lines is missing")
    );
}

proptest::proptest! {
    #[test]
    fn no_lines_make_it_panic_or_let_anyone_in(input in "\\PC{0,80}|sig=\\((\"@?[a-z-]{1,9}\" ?){0,4}\\)(;[a-z]{1,7}=[\"0-9a-z:]{0,9}){0,4}", value in "\\PC{0,40}|sig=:[A-Za-z0-9+/]{0,12}={0,2}:") {
        let mut head = request(HMAC.0, HMAC.1);
        if let (Ok(input), Ok(value)) = (input.parse(), value.parse()) {
            head.headers.insert(SIGNATURE_INPUT, input);
            head.headers.insert(SIGNATURE, value);
            let refused = judged(&signature(|_| {}), &head, CREATED).is_err();
            proptest::prop_assert!(refused);
        }
    }
}
