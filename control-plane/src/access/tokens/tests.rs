use std::time::Duration;

use shared::ids::TokenId;
use shared::random::SystemRandom;
use shared::secret::Secret;

use super::{
    NewToken, TokenError, TokenRefused, end_tokens, make_token, revoke_by_id, revoke_token, token_of, tokens,
};
use crate::access::{Role, Token, create_user};
use crate::audit::{self, Action, Who};
use crate::db::testing::on_both;
use crate::testing::Fixture;

const HERE: &str = "192.0.2.1";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn wanted(name: &str) -> NewToken {
    NewToken { name: name.to_owned(), roles: vec![Role::Support], days: 90, user: None }
}

async fn make(fixture: &Fixture, new: &NewToken) -> Result<Secret<String>, TokenError> {
    let app = &fixture.app;
    let mut tx = app.db.write().await.unwrap();
    let text = make_token(&mut tx, &app.root, &*app.clock, &*app.random, Who::cli(), new).await?;
    tx.commit().await.unwrap();
    Ok(text)
}

async fn all(fixture: &Fixture) -> Vec<Token> {
    tokens(&mut fixture.app.db.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_token_is_found_by_its_text_until_it_ends() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let text = make(&fixture, &wanted("monitoring")).await.unwrap();
        assert!(text.expose().starts_with("board_") && text.expose().len() == 49);
        assert!(crate::free_text::check(text.expose(), 2000).is_err(), "nobody keeps one in a note");
        let token = token_of(app, text.expose(), HERE).await.unwrap();
        assert_eq!((token.name.as_str(), token.roles.as_slice()), ("monitoring", [Role::Support].as_slice()));
        assert_eq!(token.created_by, "command line");
        let unknown = token_of(app, "board_made-up", HERE).await;
        assert!(matches!(unknown, Err(TokenRefused::Unknown)));

        assert!(matches!(make(&fixture, &wanted("monitoring")).await, Err(TokenError::Taken)));
        fixture.clock.advance(DAY * 90);
        let over = token_of(app, text.expose(), HERE).await;
        assert!(matches!(over, Err(TokenRefused::Expired)));
        let next = make(&fixture, &wanted("monitoring")).await.expect("an expired one leaves its name");
        let mut tx = app.db.write().await.unwrap();
        revoke_token(&mut tx, &*app.clock, Who::cli(), "monitoring").await.unwrap();
        tx.commit().await.unwrap();
        let ended = token_of(app, next.expose(), HERE).await;
        assert!(matches!(ended, Err(TokenRefused::Revoked)));
        let mut tx = app.db.write().await.unwrap();
        let again = revoke_token(&mut tx, &*app.clock, Who::cli(), "monitoring").await;
        assert!(matches!(again, Err(TokenError::UnknownToken)));
        drop(tx);
        let entries = audit::page(&mut app.db.read().await.unwrap(), None, 10).await.unwrap();
        let actions: Vec<_> = entries.iter().take(3).map(|stored| stored.entry.action).collect();
        assert_eq!(actions, [Action::TokenRevoked, Action::TokenMade, Action::TokenMade]);
        assert!(entries.iter().all(|stored| !format!("{:?}", stored.entry).contains(next.expose())));
    })
    .await;
}

#[tokio::test]
async fn an_id_ends_the_token_that_has_it_and_no_other() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        make(&fixture, &wanted("first")).await.unwrap();
        make(&fixture, &wanted("second")).await.unwrap();
        let first = all(&fixture).await.into_iter().find(|token| token.name == "first").unwrap();
        // As a board without that rule may have stored it.
        let mut tx = app.db.write().await.unwrap();
        crate::on!(&mut tx, conn => sqlx::query("UPDATE api_tokens SET name = $1 WHERE name = 'second'")
            .bind(first.id.to_string())
            .execute(conn)
            .await
            .map(|_| ()))
        .unwrap();
        revoke_token(&mut tx, &*app.clock, Who::cli(), &first.id.to_string()).await.unwrap();
        let again = revoke_by_id(&mut tx, &*app.clock, Who::cli(), first.id).await;
        assert!(matches!(again, Err(TokenError::UnknownToken)));
        tx.commit().await.unwrap();
        let living: Vec<_> =
            all(&fixture).await.into_iter().filter(|token| token.revoked_at.is_none()).collect();
        assert_eq!(living.len(), 1);
        assert_eq!(living[0].name, first.id.to_string(), "the other one, whatever it is called");
    })
    .await;
}

#[tokio::test]
async fn the_last_use_is_known_to_the_minute() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let text = make(&fixture, &wanted("monitoring")).await.unwrap();
        assert_eq!(all(&fixture).await[0].last_used_at, None);
        let first = app.now();
        token_of(app, text.expose(), HERE).await.unwrap();
        fixture.clock.advance(Duration::from_secs(59));
        token_of(app, text.expose(), HERE).await.unwrap();
        assert_eq!(all(&fixture).await[0].last_used_at, Some(first));
        fixture.clock.advance(Duration::from_secs(1));
        token_of(app, text.expose(), HERE).await.unwrap();
        assert_eq!(all(&fixture).await[0].last_used_at, Some(app.now()));
    })
    .await;
}

#[tokio::test]
async fn bad_tokens_are_throttled_per_address_and_good_ones_never() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let text = make(&fixture, &wanted("monitoring")).await.unwrap();
        for _ in 0..30 {
            let refused = token_of(app, "board_guess", HERE).await;
            assert!(matches!(refused, Err(TokenRefused::Unknown)));
        }
        assert!(matches!(token_of(app, "board_guess", HERE).await, Err(TokenRefused::TooMany)));
        token_of(app, text.expose(), HERE).await.unwrap();
        let elsewhere = token_of(app, "board_guess", "192.0.2.99").await;
        assert!(matches!(elsewhere, Err(TokenRefused::Unknown)));
    })
    .await;
}

#[tokio::test]
async fn what_a_token_may_be_is_bounded_and_it_follows_its_user() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let bad = [
            NewToken { name: "  ".into(), ..wanted("") },
            NewToken { name: TokenId::new(&*fixture.clock, &SystemRandom).to_string(), ..wanted("") },
            NewToken { name: "x".repeat(61), ..wanted("") },
            NewToken { roles: vec![], ..wanted("a") },
            NewToken { days: 0, ..wanted("a") },
            NewToken { days: 366, ..wanted("a") },
            NewToken { user: Some("nobody@example.com".into()), ..wanted("a") },
        ];
        for new in bad {
            assert!(make(&fixture, &new).await.is_err(), "{new:?}");
        }
        let theirs = |name: &str, role| NewToken {
            roles: vec![role],
            user: Some("consultant@example.com".into()),
            ..wanted(name)
        };
        make(&fixture, &theirs("reads", Role::Support)).await.unwrap();
        make(&fixture, &theirs("acts", Role::Consultant)).await.unwrap();
        make(&fixture, &wanted("nobody's")).await.unwrap();
        let app = &fixture.app;
        let end = |roles: Option<Vec<Role>>| async move {
            let mut tx = app.db.write().await.unwrap();
            let ended = end_tokens(&mut tx, "consultant@example.com", roles.as_deref(), app.now()).await;
            tx.commit().await.unwrap();
            ended.unwrap()
        };
        assert!(end(Some(vec![Role::Consultant])).await.is_empty());
        assert_eq!(end(Some(vec![Role::Operator])).await, ["acts"]);
        assert_eq!(end(None).await, ["reads"]);
        assert_eq!(all(&fixture).await.iter().filter(|token| token.revoked_at.is_none()).count(), 1);
        let mut tx = app.db.write().await.unwrap();
        let (root, clock, random) = (&app.root, &*app.clock, &*app.random);
        let roles = [Role::Support];
        create_user(&mut tx, root, clock, random, "support@example.com", &roles).await.unwrap();
        tx.commit().await.unwrap();
        let user = Some("support@example.com".to_owned());
        let more = NewToken { roles: vec![Role::Consultant], user, ..wanted("more") };
        assert!(matches!(make(&fixture, &more).await, Err(TokenError::NotTheirs(Role::Consultant))));
    })
    .await;
}
