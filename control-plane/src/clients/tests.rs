use std::collections::BTreeSet;

use super::{
    CreateError, NewClient, Package, Scope, choose_package, choose_scope, create, get, package, scope, slots,
};
use crate::catalog::AnySlot;
use crate::db::testing::on_both;
use crate::testing::Fixture;

#[tokio::test]
async fn what_is_missing_or_hostile_is_named_field_by_field() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let good = NewClient { name: "Example Client".into(), ..NewClient::default() };
        let token = format!("xoxb{}", "-123456789012-abcdefghijkl");
        let cases = [
            (NewClient { name: "  ".into(), ..good.clone() }, "name"),
            (NewClient { name: "x".repeat(201), vault_name: "Vault".into(), ..good.clone() }, "name"),
            (NewClient { name: token.clone(), ..good.clone() }, "name"),
            (NewClient { vault_name: "a/b".into(), ..good.clone() }, "vault_name"),
            (NewClient { name: "לקוח".into(), ..good.clone() }, "vault_name"),
            (NewClient { notes: format!("the token is {token}"), ..good.clone() }, "notes"),
            (NewClient { notes: "x".repeat(1024 * 1024), ..good.clone() }, "notes"),
        ];
        for (form, field) in cases {
            let refused = create(&fixture.app, Fixture::who(), fixture.user, &form).await;
            let Err(CreateError::Fields(errors)) = refused else { panic!("{field} is refused") };
            assert_eq!(errors.len(), 1, "{field}: {errors:?}");
            assert_eq!(errors[0].field, field);
            assert!(!errors[0].message.contains(&token));
        }
    })
    .await;
}

#[tokio::test]
async fn emoji_right_to_left_text_and_markup_are_accepted_as_they_are() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let form = NewClient {
            name: "מאפייה 🥐 <b>&amp;</b>".into(),
            vault_name: "Bakery".into(),
            notes: "<script>alert(1)</script>".into(),
        };
        let id = create(&fixture.app, Fixture::who(), fixture.user, &form)
            .await
            .unwrap_or_else(|_| panic!("accepted"));
        let mut tx = fixture.app.db.read().await.unwrap();
        let client = get(&mut tx, id).await.unwrap();
        assert_eq!((client.name, client.notes), (form.name, form.notes));
        assert!(client.salt.is_some());
    })
    .await;
}

/// `auth` has a group with one slot of each tag, `params` an input, `apart` excludes `auth`.
const MORE: &[(&str, &str)] = &[
    (
        "auth",
        r#"
key = "auth"
name = "Sign-in"
category = "ai"
summary = "One of two."
platforms = ["linux"]
depends_on = ["base"]
[[slot]]
key = "OUR_KEY"
name = "Our key"
tag = "our-managed"
required = false
one_of = "auth"
[[slot]]
key = "THEIR_TOKEN"
name = "Their token"
tag = "client-supplied"
required = false
one_of = "auth"
hint = "op://{vault}/Auth/token"
"#,
    ),
    (
        "params",
        r#"
key = "params"
name = "Params"
category = "ai"
summary = "Wants an input."
platforms = ["linux"]
[[param]]
key = "TEAM"
name = "Team id"
pattern = "^T[A-Z0-9]{3}$"
required = true
"#,
    ),
    (
        "apart",
        r#"
key = "apart"
name = "Apart"
category = "ai"
summary = "Not together with the sign-in."
platforms = ["linux"]
conflicts_with = ["auth"]
"#,
    ),
];

const TIERS: &str = r#"
[[tier]]
key = "foundation"
name = "Foundation"
always = true
components = ["base"]
[[tier]]
key = "starter"
name = "Starter"
components = ["params"]
[[tier]]
key = "pro"
name = "Pro"
includes = ["starter"]
components = ["auth"]
[[addon]]
key = "extra"
name = "Extra"
components = ["tool"]
"#;

async fn fixture(db: crate::db::Db) -> (Fixture, shared::ids::ClientId) {
    let fixture = Fixture::new(db).await;
    let manifests = [crate::testing::MANIFESTS, MORE].concat();
    fixture.import_with_tiers(2, &manifests, TIERS).await.unwrap();
    let form = NewClient { name: "Example Client".into(), ..NewClient::default() };
    let id = create(&fixture.app, Fixture::who(), fixture.user, &form)
        .await
        .unwrap_or_else(|_| panic!("accepted"));
    (fixture, id)
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn a_package_preselects_and_choosing_it_again_keeps_what_was_edited() {
    on_both(|db| async move {
        let (fixture, id) = fixture(db).await;
        let app = &fixture.app;
        let pro = Package { tier: Some("pro".into()), addons: set(&["extra"]) };
        choose_package(app, Fixture::who(), id, &pro).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        assert_eq!(package(&mut tx, id).await.unwrap(), pro);
        let preselected = scope(&mut tx, id).await.unwrap().components;
        assert_eq!(preselected, set(&["auth", "base", "params", "tool"]));
        drop(tx);
        let edited = Scope { components: set(&["tool"]), ..Scope::default() };
        choose_scope(app, Fixture::who(), id, &edited).await.unwrap();
        choose_package(app, Fixture::who(), id, &pro).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let kept = scope(&mut tx, id).await.unwrap().components;
        assert_eq!(kept, set(&["base", "tool"]), "with what it depends on and what everybody gets");
        drop(tx);
        let unknown = Package { tier: Some("platinum".into()), addons: BTreeSet::new() };
        let refused = choose_package(app, Fixture::who(), id, &unknown).await;
        assert!(matches!(refused, Err(CreateError::Fields(_))));
    })
    .await;
}

#[tokio::test]
async fn choices_and_inputs_are_checked_and_decide_which_slots_are_filled() {
    on_both(|db| async move {
        let (fixture, id) = fixture(db).await;
        let app = &fixture.app;
        let key = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let good = Scope {
            components: set(&["auth", "params"]),
            choices: [(key("auth", "auth"), "THEIR_TOKEN".to_owned())].into(),
            params: [(key("params", "TEAM"), "T123".to_owned())].into(),
        };
        let cases = [
            (Scope { components: set(&["nothing"]), ..Scope::default() }, "component"),
            (Scope { choices: [].into(), ..good.clone() }, "choice-auth-auth"),
            (
                Scope { choices: [(key("auth", "auth"), "OTHER".into())].into(), ..good.clone() },
                "choice-auth-auth",
            ),
            (Scope { params: [].into(), ..good.clone() }, "param-params-TEAM"),
            (
                Scope { params: [(key("params", "TEAM"), "wrong".into())].into(), ..good.clone() },
                "param-params-TEAM",
            ),
            (
                Scope {
                    params: [(key("params", "TEAM"), format!("xoxb{}", "-1234567890-abc"))].into(),
                    ..good.clone()
                },
                "param-params-TEAM",
            ),
            (Scope { components: set(&["auth", "params", "apart"]), ..good.clone() }, "component"),
        ];
        for (bad, field) in cases {
            let refused = choose_scope(app, Fixture::who(), id, &bad).await;
            let Err(CreateError::Fields(errors)) = refused else { panic!("{field} is refused") };
            assert_eq!((errors.len(), errors[0].field.as_ref()), (1, field), "{errors:?}");
        }
        choose_scope(app, Fixture::who(), id, &good).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let wanted = slots(&mut tx, id).await.unwrap();
        assert_eq!(wanted.len(), 1);
        assert!(matches!(&wanted[0], AnySlot::Theirs(slot) if slot.slot_key == "THEIR_TOKEN"));
        let saved = scope(&mut tx, id).await.unwrap();
        assert_eq!(saved.components, set(&["auth", "base", "params"]));
        assert_eq!((saved.choices, saved.params), (good.choices, good.params));
    })
    .await;
}
