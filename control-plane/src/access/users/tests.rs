use shared::ids::UserId;
use shared::secret::Secret;

use super::super::store as access_store;
use super::{Listed, UserError, add, change_roles, disable, enable, list, new_sign_in_link, store};
use crate::access::tokens::{NewToken, make_token, token_of};
use crate::access::{AccessError, Role, accept_link, link_owner, sign_in, user_of};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::testing::Fixture;

const HERE: &str = "192.0.2.1";
const OTHER: &str = "other@example.com";

fn password() -> Secret<String> {
    Secret::new("a long test passphrase".to_owned())
}

async fn invite(fixture: &Fixture, email: &str, roles: &[Role]) -> Result<Secret<String>, UserError> {
    let app = &fixture.app;
    let mut tx = app.db.write().await.unwrap();
    let token = add(&mut tx, &app.root, &*app.clock, &*app.random, Fixture::who(), email, roles).await?;
    tx.commit().await.unwrap();
    Ok(token)
}

async fn found(fixture: &Fixture, email: &str) -> Listed {
    let users = list(&mut fixture.app.db.read().await.unwrap()).await.unwrap();
    users.into_iter().find(|user| user.email == email).unwrap()
}

/// Invited and signed in once; gives the id and a session.
async fn joined(fixture: &Fixture, roles: &[Role]) -> (UserId, Secret<String>) {
    let token = invite(fixture, OTHER, roles).await.unwrap();
    let session = accept_link(&fixture.app, token.expose(), &password(), HERE).await.unwrap();
    (found(fixture, OTHER).await.id, session)
}

/// What a user may be doing while an operator disables them.
#[derive(Clone, Copy, Debug)]
enum Doing {
    SigningIn,
    TakingALink,
    GettingAToken,
    GettingALink,
}

#[tokio::test]
async fn whoever_is_disabled_meanwhile_gets_nothing_that_outlives_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = fixture.app.clone();
        let (id, _) = joined(&fixture, &[Role::Consultant]).await;
        for doing in [Doing::SigningIn, Doing::TakingALink, Doing::GettingAToken, Doing::GettingALink] {
            let (_, link) = new_sign_in_link(&app, Fixture::who(), id).await.unwrap();

            let mut disabling = app.db.write().await.unwrap();
            assert_eq!(store::disable(&mut disabling, id, app.now()).await.unwrap(), 1);
            access_store::end_access(&mut disabling, id, app.now()).await.unwrap();
            let there = app.clone();
            let done = tokio::spawn(async move {
                let app = &there;
                match doing {
                    Doing::SigningIn => sign_in(app, OTHER, &password(), HERE).await.is_ok(),
                    Doing::TakingALink => accept_link(app, link.expose(), &password(), HERE).await.is_ok(),
                    Doing::GettingALink => new_sign_in_link(app, Fixture::who(), id).await.is_ok(),
                    Doing::GettingAToken => {
                        let (roles, user) = (vec![Role::Consultant], Some(OTHER.to_owned()));
                        let new = NewToken { name: "theirs".into(), roles, days: 1, user };
                        let mut tx = app.db.write().await.unwrap();
                        let (root, clock, random) = (&app.root, &*app.clock, &*app.random);
                        let made = make_token(&mut tx, root, clock, random, Fixture::who(), &new).await;
                        tx.commit().await.unwrap();
                        made.is_ok()
                    }
                }
            });
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            disabling.commit().await.unwrap();
            assert!(!done.await.unwrap(), "{doing:?}");
            enable(&app, Fixture::who(), id).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn somebody_is_invited_once_with_roles_and_a_link() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        for bad in ["", "nobody", "@example.com", "a@", "a b@example.com", "a@b@example.com"] {
            let refused = invite(&fixture, bad, &[Role::Support]).await;
            assert!(matches!(refused, Err(UserError::Email)), "{bad}");
        }
        assert!(matches!(invite(&fixture, OTHER, &[]).await, Err(UserError::NoRole)));
        let token = invite(&fixture, " other@example.com ", &[Role::Support, Role::Support]).await.unwrap();
        let user = found(&fixture, OTHER).await;
        assert_eq!((user.roles.as_slice(), user.has_password), ([Role::Support].as_slice(), false));
        let again = invite(&fixture, "Other@Example.com", &[Role::Support]).await;
        assert!(matches!(again, Err(UserError::Taken)));
        accept_link(&fixture.app, token.expose(), &password(), HERE).await.unwrap();
        assert!(found(&fixture, OTHER).await.has_password);
        let entries = audit::page(&mut fixture.app.db.read().await.unwrap(), None, 10).await.unwrap();
        let made = entries.iter().find(|stored| stored.entry.action == Action::UserAdded).unwrap();
        assert_eq!(made.entry.who, Fixture::who());
        assert_eq!(made.entry.detail["roles"], "support");
    })
    .await;
}

#[tokio::test]
async fn the_last_operator_who_can_sign_in_stays() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let who = Fixture::who;
        for _ in 0..2 {
            let less = change_roles(app, who(), fixture.user, &[Role::Consultant]).await;
            assert!(matches!(less, Err(UserError::LastOperator)));
            assert!(matches!(disable(app, who(), fixture.user).await, Err(UserError::LastOperator)));
            let both = found(&fixture, "consultant@example.com").await;
            assert_eq!((both.roles.len(), both.disabled_at), (2, None), "nothing was changed");
            // Somebody who was invited and never came doesn't count.
            let _ = invite(&fixture, "waiting@example.com", &[Role::Operator]).await;
        }
        let (other, _) = joined(&fixture, &[Role::Operator]).await;
        // Both at once: one of them stays.
        let (first, second) = tokio::join!(disable(app, who(), fixture.user), disable(app, who(), other));
        assert_eq!([&first, &second].iter().filter(|done| done.is_ok()).count(), 1, "{first:?} {second:?}");
    })
    .await;
}

#[tokio::test]
async fn roles_count_at_once_and_tokens_shrink_with_them() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let (other, session) = joined(&fixture, &[Role::Consultant]).await;
        let mut tx = app.db.write().await.unwrap();
        let new = NewToken {
            name: "theirs".into(),
            roles: vec![Role::Consultant],
            days: 1,
            user: Some(OTHER.into()),
        };
        let token = make_token(&mut tx, &app.root, &*app.clock, &*app.random, Fixture::who(), &new).await;
        tx.commit().await.unwrap();
        let token = token.unwrap();
        assert!(matches!(change_roles(app, Fixture::who(), other, &[]).await, Err(UserError::NoRole)));
        change_roles(app, Fixture::who(), other, &[Role::Support]).await.unwrap();
        let user = user_of(app, session.expose()).await.unwrap().unwrap();
        assert_eq!(user.roles, [Role::Support]);
        assert!(token_of(app, token.expose(), HERE).await.is_err());
        let entries = audit::page(&mut app.db.read().await.unwrap(), None, 1).await.unwrap();
        let detail = &entries[0].entry.detail;
        assert_eq!(
            (detail["before"].as_str(), detail["roles"].as_str(), detail["ended_tokens"].as_str()),
            ("consultant", "support", "theirs")
        );
        change_roles(app, Fixture::who(), other, &[Role::Support]).await.unwrap();
        let after = audit::page(&mut app.db.read().await.unwrap(), None, 1).await.unwrap();
        assert_eq!(after[0].seq, entries[0].seq, "nothing changed, nothing written");
    })
    .await;
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once_and_back_with_the_same_password() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let (other, session) = joined(&fixture, &[Role::Support]).await;
        let (_, link) = new_sign_in_link(app, Fixture::who(), other).await.unwrap();
        let new =
            NewToken { name: "theirs".into(), roles: vec![Role::Support], days: 1, user: Some(OTHER.into()) };
        let mut tx = app.db.write().await.unwrap();
        let token =
            make_token(&mut tx, &app.root, &*app.clock, &*app.random, Fixture::who(), &new).await.unwrap();
        tx.commit().await.unwrap();
        token_of(app, token.expose(), HERE).await.unwrap();

        disable(app, Fixture::who(), other).await.unwrap();
        disable(app, Fixture::who(), other).await.expect("doing it again changes nothing");
        assert!(user_of(app, session.expose()).await.unwrap().is_none());
        assert!(matches!(link_owner(app, link.expose()).await, Err(AccessError::LinkOver)));
        assert!(token_of(app, token.expose(), HERE).await.is_err());
        let refused = sign_in(app, OTHER, &password(), HERE).await;
        assert!(matches!(refused, Err(AccessError::WrongPassword)));
        let refused = new_sign_in_link(app, Fixture::who(), other).await;
        assert!(matches!(refused, Err(UserError::Disabled)));

        enable(app, Fixture::who(), other).await.unwrap();
        sign_in(app, OTHER, &password(), HERE).await.unwrap();
        assert!(user_of(app, session.expose()).await.unwrap().is_none(), "the old session stays ended");
        assert!(token_of(app, token.expose(), HERE).await.is_err(), "and so does the token");
        let entries = audit::page(&mut app.db.read().await.unwrap(), None, 20).await.unwrap();
        let count = |action| entries.iter().filter(|stored| stored.entry.action == action).count();
        assert_eq!((count(Action::UserDisabled), count(Action::UserEnabled)), (1, 1));
    })
    .await;
}
