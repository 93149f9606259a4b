//! Of a group of slots a device gets the chosen one.

use std::collections::BTreeMap;

use shared::ids::DeviceId;

use super::value;
use crate::catalog::{self, AnySlot};
use crate::clients::{Scope, choose_scope};
use crate::db::testing::on_both;
use crate::secrets::{DeliveryState, for_device, plan, put, reconcile, seal};
use crate::testing::{Fixture, MANIFESTS};

const SIGN: &str = r#"
key = "sign"
name = "Sign-in"
category = "ai"
summary = "One of two."
platforms = ["linux", "macos"]
[[slot]]
key = "FIRST"
name = "First key"
tag = "our-managed"
required = false
one_of = "auth"
[[slot]]
key = "SECOND"
name = "Second key"
tag = "our-managed"
required = false
one_of = "auth"
[[step]]
id = "test"
kind = "auto"
title = "Test the sign-in"
as = "user"
check = "false"
run = "true"
"#;

fn chosen(slot: &str) -> Scope {
    Scope {
        components: ["sign".to_owned()].into(),
        choices: [(("sign".to_owned(), "auth".to_owned()), slot.to_owned())].into(),
        ..Scope::default()
    }
}

async fn states(fixture: &Fixture, device: DeviceId) -> BTreeMap<String, DeliveryState> {
    let mut tx = fixture.app.db.read().await.unwrap();
    let found = for_device(&mut tx, device).await.unwrap();
    found.into_iter().map(|delivery| (delivery.slot_key, delivery.state)).collect()
}

#[tokio::test]
async fn of_a_group_the_chosen_slot_is_delivered_and_no_other() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        fixture.import(2, &[MANIFESTS, &[("sign", SIGN)]].concat()).await.unwrap();
        let client = fixture.client("Example Client", &["base"]).await;
        choose_scope(&fixture.app, Fixture::who(), client, &chosen("FIRST")).await.unwrap();
        let known = fixture.get_client(client).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        for key in ["FIRST", "SECOND"] {
            let mut tx = fixture.app.db.read().await.unwrap();
            let slot = catalog::slot(&mut tx, "sign", key).await.unwrap();
            drop(tx);
            let Some(AnySlot::Ours(slot)) = slot else { panic!("it is ours") };
            put(&fixture.app, Fixture::who(), &known, &slot, &value()).await.unwrap();
        }
        assert_eq!(states(&fixture, device).await, [("FIRST".into(), DeliveryState::Pending)].into());
        let mut tx = fixture.app.db.read().await.unwrap();
        let first = for_device(&mut tx, device).await.unwrap().remove(0);
        drop(tx);

        choose_scope(&fixture.app, Fixture::who(), client, &chosen("SECOND")).await.unwrap();
        assert!(
            seal(&fixture.app, &first, "digest").await.unwrap().is_none(),
            "not even before it is planned"
        );
        let mut tx = fixture.app.db.write().await.unwrap();
        reconcile(&mut tx, device, &[]).await.unwrap();
        plan(&fixture.app, &mut tx, device).await.unwrap();
        tx.commit().await.unwrap();
        let swapped =
            [("FIRST".into(), DeliveryState::Superseded), ("SECOND".into(), DeliveryState::Pending)];
        assert_eq!(states(&fixture, device).await, swapped.into());
    })
    .await;
}
