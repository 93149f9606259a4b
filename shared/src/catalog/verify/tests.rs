use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CheckUrl, Condition, FieldPath, Host, Literal, Method, Part, Template, VerifySecret};

fn condition(text: &str) -> Result<Condition, String> {
    Condition::try_from(text.to_owned())
}

#[test]
fn the_grammar_of_conditions_is_these_two_shapes() {
    let path = |text: &str| FieldPath::try_from(text.to_owned()).unwrap();
    let table = [
        ("status == 200", Condition::Status(200)),
        ("json.ok == true", Condition::Json(path("ok"), Literal::Bool(true))),
        ("json.a.b-c.d_1 == null", Condition::Json(path("a.b-c.d_1"), Literal::Null)),
        ("json.n == -12", Condition::Json(path("n"), Literal::Int(-12))),
        (
            "json.error == 'invalid_auth'",
            Condition::Json(path("error"), Literal::Text("invalid_auth".into())),
        ),
        ("json.a == ' == '", Condition::Json(path("a"), Literal::Text(" == ".into()))),
        ("json.a == ''", Condition::Json(path("a"), Literal::Text(String::new()))),
    ];
    for (text, expected) in table {
        assert_eq!(condition(text), Ok(expected), "{text}");
    }
    for bad in [
        "",
        "status",
        "status = 200",
        "status==200",
        "status == 99",
        "status == 600",
        "status == +200",
        "status == 0200",
        "status == '200'",
        "status != 200",
        "status == 200 or status == 201",
        " status == 200",
        "json == true",
        "json. == true",
        "json.a. == true",
        "json.a..b == true",
        "json.a[0] == 1",
        "json.a == TRUE",
        "json.a == 1.5",
        "json.a == \"x\"",
        "json.a == 'x",
        "json.a == 'x'y'",
        "json.a == 'x\\n'",
        "json.a == true ",
        "body == 'x'",
    ] {
        let said = condition(bad).unwrap_err();
        assert!(said.contains("can't be read") || said.contains("from 100 to 599"), "{bad}: {said}");
    }
}

#[test]
fn a_condition_holds_of_exactly_what_it_names() {
    let answer =
        json!({ "ok": true, "n": 3, "error": "invalid_auth", "data": { "user": null, "list": [1] } });
    let table = [
        ("status == 200", true),
        ("status == 401", false),
        ("json.ok == true", true),
        ("json.ok == 'true'", false),
        ("json.n == 3", true),
        ("json.n == '3'", false),
        ("json.error == 'invalid_auth'", true),
        ("json.data.user == null", true),
        ("json.data.missing == null", false),
        ("json.data.list.0 == 1", false),
        ("json.ok.deeper == true", false),
    ];
    for (text, expected) in table {
        assert_eq!(condition(text).unwrap().holds(200, Some(&answer)), expected, "{text}");
    }
    assert!(!condition("json.ok == true").unwrap().holds(200, None), "no JSON, nothing holds");
    assert!(condition("status == 204").unwrap().holds(204, None));
}

#[test]
fn a_template_has_three_placeholders_and_no_more() {
    let parts = |text: &str| Template::try_from(text.to_owned()).map(|template| template.parts().to_vec());
    assert_eq!(parts("Bearer {secret}"), Ok(vec![Part::Text("Bearer ".into()), Part::Secret]));
    assert_eq!(
        parts("{slot:A_KEY}{param:B}:"),
        Ok(vec![Part::Slot("A_KEY".into()), Part::Param("B".into()), Part::Text(":".into())])
    );
    assert_eq!(parts(""), Ok(Vec::new()));
    for bad in [
        "{{secret}}",
        "{Secret}",
        "{secret",
        "secret}",
        "{}",
        "{slot:}",
        "{slot:a b}",
        "{env:HOME}",
        "a\r\nX: y",
        "ä{secret}",
    ] {
        assert!(parts(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_address_leads_to_a_literal_place_over_https() {
    let url = |text: &str| CheckUrl::try_from(text.to_owned());
    let plain = url("https://api.example.com/v1/models?limit=1").unwrap();
    assert_eq!(plain.host, Host::Literal("api.example.com".into()));
    assert_eq!(plain.path, "/v1/models?limit=1");
    assert_eq!(url("https://example.com").unwrap().path, "/");
    let below = url("https://{param:STORE}.shops.example.com/admin").unwrap();
    let name = |value: &str| below.host.name(|_| Some(value.to_owned()));
    assert_eq!(name("acme-1").as_deref(), Some("acme-1.shops.example.com"));
    for elsewhere in
        ["", "a.b", "evil.example/", "evil.example?", "a@b", "a:1", "a#", "-a", "a\\b", "ä", "a b"]
    {
        assert_eq!(name(elsewhere), None, "{elsewhere:?}");
    }
    assert_eq!(below.host.name(|_| None), None);
    for bad in [
        "http://api.example.com/",
        "HTTPS://api.example.com/",
        "https://",
        "https:///x",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://0x7f.0x1/",
        "https://example.0x/",
        "https://example.1a/",
        "https://{param:HOST}.0.0x1/",
        "https://[::1]/",
        "https://api.example.com:8443/",
        "https://user@api.example.com/",
        "https://api.example.com@evil.example/",
        "https://api.example.com?key={secret}",
        "https://api.example.com/{secret}",
        "https://api.example.com/{param:A}",
        "https://api.example.com/#x",
        "https://api.example.com/a b",
        "https://api.example.com/ä",
        "https://API.example.com/",
        "https://{param:HOST}/",
        "https://{param:HOST}.com/",
        "https://{param:HOST}example.com/",
        "https://{slot:HOST}.example.com/",
        "https://{secret}.example.com/",
        "https://x.{param:HOST}.example.com/",
        "https://{param:}.example.com/",
    ] {
        assert!(url(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_check_knows_what_it_reads() {
    let text = r#"
method = "POST"
url = "https://{param:STORE}.example.com/me"
basic = "{secret}:{slot:PASSWORD}"
headers = { X-System = "{param:SYSTEM}", X-Key = "{slot:KEY}" }
ok = "status == 200"
record = ["data.id"]
"#;
    let check: VerifySecret = toml::from_str(text).unwrap();
    assert_eq!(check.method, Method::Post);
    assert_eq!(check.params().collect::<Vec<_>>(), ["STORE", "SYSTEM"]);
    assert_eq!(check.other_slots().collect::<Vec<_>>(), ["KEY", "PASSWORD"]);
    assert_eq!(check.record[0].to_string(), "data.id");
    for (from, to) in [
        ("\"POST\"", "\"DELETE\""),
        ("\"POST\"", "\"post\""),
        ("record = [\"data.id\"]", "record = [\"*\"]"),
        ("record = [\"data.id\"]", "follow = true"),
    ] {
        assert!(toml::from_str::<VerifySecret>(&text.replace(from, to)).is_err(), "{to}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}|.{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_and_no_answer_makes_it_panic(
        text in prop_oneof![".{0,40}", "(status|json(\\.[a-c]{0,2}){0,3}) ?(==|=) ?('?[ a-z0-9'-]{0,8}|true|null|-?[0-9]{0,25})"],
        status in any::<u16>(),
        json in prop::option::of(any_json()),
    ) {
        if let Ok(condition) = Condition::try_from(text.clone()) {
            condition.holds(status, json.as_ref());
        }
        let _ = FieldPath::try_from(text.clone()).map(|path| json.as_ref().and_then(|json| path.find(json).cloned()));
        let _ = Template::try_from(text.clone());
        if let Ok(url) = CheckUrl::try_from(format!("https://{text}")) {
            url.host.name(|_| Some(text));
        }
    }

    #[test]
    fn what_holds_is_in_the_answer(json in any_json(), literal in prop_oneof![Just("true"), Just("null"), Just("1"), Just("'a'")]) {
        let condition = condition(&format!("json.a == {literal}")).unwrap();
        let same = json.get("a").is_some_and(|value| value.to_string().replace('"', "'") == literal);
        prop_assert_eq!(condition.holds(200, Some(&json)), same);
    }
}
