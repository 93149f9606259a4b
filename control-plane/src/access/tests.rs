use std::time::Duration;

use shared::secret::Secret;

use super::{AccessError, Role, SESSION_TTL, accept_link, link_owner, new_link, sign_in, sign_out, user_of};
use crate::audit::{self, Action, Who};
use crate::db::testing::on_both;
use crate::testing::Fixture;

const EMAIL: &str = "consultant@example.com";
const HERE: &str = "192.0.2.1";

fn password(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

async fn link(fixture: &Fixture) -> Secret<String> {
    let app = &fixture.app;
    let mut tx = app.db.write().await.unwrap();
    let token = new_link(&mut tx, &app.root, &*app.clock, &*app.random, EMAIL).await.unwrap();
    tx.commit().await.unwrap();
    token
}

#[tokio::test]
async fn a_link_works_once_within_a_day() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let token = link(&fixture).await;
        assert_eq!(link_owner(app, token.expose()).await.unwrap(), EMAIL);
        let short = accept_link(app, token.expose(), &password("too short"), HERE).await;
        assert!(matches!(short, Err(AccessError::ShortPassword)));
        let session =
            accept_link(app, token.expose(), &password("another long passphrase"), HERE).await.unwrap();
        let user = user_of(app, session.expose()).await.unwrap().unwrap();
        assert_eq!(user.roles, [Role::Consultant, Role::Operator]);
        let again = accept_link(app, token.expose(), &password("another long passphrase"), HERE).await;
        assert!(matches!(again, Err(AccessError::LinkOver)));

        let (lost, found) = (link(&fixture).await, link(&fixture).await);
        accept_link(app, found.expose(), &password("a third long passphrase"), HERE).await.unwrap();
        assert!(user_of(app, session.expose()).await.unwrap().is_none(), "a new password ends old sessions");
        assert!(
            matches!(link_owner(app, lost.expose()).await, Err(AccessError::LinkOver)),
            "and other links"
        );

        let late = link(&fixture).await;
        fixture.clock.advance(Duration::from_secs(24 * 3600 + 1));
        assert!(matches!(link_owner(app, late.expose()).await, Err(AccessError::LinkOver)));
        assert!(matches!(link_owner(app, "made up").await, Err(AccessError::LinkOver)));
    })
    .await;
}

#[tokio::test]
async fn signing_in_wants_the_password_and_too_many_wrong_ones_wait() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let right = password("a long test passphrase");
        sign_in(app, &EMAIL.to_uppercase(), &right, HERE).await.unwrap();
        let unknown = sign_in(app, "nobody@example.com", &right, HERE).await.unwrap_err();
        let wrong = sign_in(app, EMAIL, &password("wrong"), HERE).await.unwrap_err();
        assert_eq!(unknown.to_string(), wrong.to_string(), "nobody learns which addresses exist");
        for _ in 0..9 {
            assert!(matches!(
                sign_in(app, EMAIL, &password("wrong"), HERE).await,
                Err(AccessError::WrongPassword)
            ));
        }
        assert!(matches!(sign_in(app, EMAIL, &right, HERE).await, Err(AccessError::TooMany)));
        sign_in(app, EMAIL, &right, "192.0.2.99").await.unwrap();
        fixture.clock.advance(Duration::from_secs(901));
        sign_in(app, EMAIL, &right, HERE).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let refused = audit::page(&mut tx, None, 100).await.unwrap();
        assert_eq!(refused.iter().filter(|e| e.entry.action == Action::SignInRefused).count(), 11);
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_by_signing_out_and_by_time() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let right = password("a long test passphrase");
        let first = sign_in(app, EMAIL, &right, HERE).await.unwrap();
        let second = sign_in(app, EMAIL, &right, HERE).await.unwrap();
        sign_out(app, first.expose(), Who::user(EMAIL, HERE)).await.unwrap();
        assert!(user_of(app, first.expose()).await.unwrap().is_none());
        assert!(user_of(app, second.expose()).await.unwrap().is_some());
        fixture.clock.advance(SESSION_TTL + Duration::from_secs(1));
        assert!(user_of(app, second.expose()).await.unwrap().is_none());
    })
    .await;
}
