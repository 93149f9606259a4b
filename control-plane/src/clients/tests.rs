use super::{CreateError, NewClient, create, get};
use crate::db::testing::on_both;
use crate::testing::Fixture;

#[tokio::test]
async fn what_is_missing_or_hostile_is_named_field_by_field() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let good = NewClient {
            name: "Example Client".into(),
            components: vec!["base".into()],
            ..NewClient::default()
        };
        let token = format!("xoxb{}", "-123456789012-abcdefghijkl");
        let cases = [
            (NewClient { name: "  ".into(), ..good.clone() }, "name"),
            (NewClient { name: "x".repeat(201), vault_name: "Vault".into(), ..good.clone() }, "name"),
            (NewClient { name: token.clone(), ..good.clone() }, "name"),
            (NewClient { vault_name: "a/b".into(), ..good.clone() }, "vault_name"),
            (NewClient { name: "לקוח".into(), ..good.clone() }, "vault_name"),
            (NewClient { notes: format!("the token is {token}"), ..good.clone() }, "notes"),
            (NewClient { notes: "x".repeat(1024 * 1024), ..good.clone() }, "notes"),
            (NewClient { components: Vec::new(), ..good.clone() }, "component"),
            (NewClient { components: vec!["nothing".into()], ..good.clone() }, "component"),
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
            components: vec!["base".into(), "tool".into(), "base".into()],
        };
        let id = create(&fixture.app, Fixture::who(), fixture.user, &form)
            .await
            .unwrap_or_else(|_| panic!("accepted"));
        let mut tx = fixture.app.db.read().await.unwrap();
        let client = get(&mut tx, id).await.unwrap();
        assert_eq!((client.name, client.notes), (form.name, form.notes));
        assert_eq!(super::components(&mut tx, id).await.unwrap(), ["base", "tool"]);
        assert!(client.salt.is_some());
    })
    .await;
}
