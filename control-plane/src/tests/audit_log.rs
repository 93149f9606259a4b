//! The audit log from outside: heads that devices were told, alarms, the page, exports.

use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use shared::ids::{ClientId, DeviceId};
use shared::protocol::link::Head;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{ask, post, read, signed_in};
use crate::access::Role;
use crate::audit::{self, Action, Alarm, Entry, Standing, Told, Walk, Who, compare_heads, read_export};
use crate::db::Db;
use crate::db::testing::{on_both, owner_of};
use crate::on;
use crate::testing::Fixture;

async fn run(db: &Db, sql: &str) {
    let mut tx = db.write().await.unwrap();
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

/// Takes the locks off, as who has the database can.
async fn unlock(db: &Db) -> Db {
    let owner = owner_of(db).await;
    for name in ["update", "delete"] {
        let on = if matches!(db, Db::Sqlite(_)) { "" } else { " ON audit_log" };
        run(&owner, &format!("DROP TRIGGER audit_log_refuses_{name}{on}")).await;
    }
    owner
}

async fn written(fixture: &Fixture, count: usize, reason: &str) {
    let mut tx = fixture.app.db.write().await.unwrap();
    for _ in 0..count {
        let entry = Entry::new(fixture.app.now(), Who::job("test"), Action::SignedIn).reason(reason);
        audit::append(&mut tx, &entry).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn head(fixture: &Fixture) -> Head {
    let mut tx = fixture.app.db.read().await.unwrap();
    audit::head(&mut tx).await.unwrap()
}

async fn standing(fixture: &Fixture, head: &Head) -> Standing {
    let mut tx = fixture.app.db.read().await.unwrap();
    audit::standing(&mut tx, head).await.unwrap()
}

async fn alarms(fixture: &Fixture) -> Vec<Alarm> {
    let mut tx = fixture.app.db.read().await.unwrap();
    audit::alarms(&mut tx).await.unwrap()
}

/// As the link does when a device says hello.
async fn hello(fixture: &Fixture, device: (ClientId, DeviceId), head: &Head) -> bool {
    let who = Who::device(device.1, "192.0.2.17");
    let mut tx = fixture.app.db.write().await.unwrap();
    let witness = audit::Witness { device: Some(device), who, head };
    let raised = audit::compare(&mut tx, &witness, fixture.app.now()).await.unwrap();
    tx.commit().await.unwrap();
    raised
}

async fn page(fixture: &Fixture, path: &str, cookie: &str) -> (StatusCode, String) {
    let answer = ask(fixture, Method::GET, path, Some(cookie), "http://board.test").await;
    let (parts, page) = read(answer).await;
    (parts.status, page)
}

async fn health(fixture: &Fixture) -> String {
    fixture.clock.advance(Duration::from_secs(11));
    let (parts, said) = read(ask(fixture, Method::GET, "/health", None, "http://board.test").await).await;
    assert_eq!(parts.status, StatusCode::OK, "{said}");
    said
}

#[tokio::test]
async fn a_head_that_the_log_does_not_hold_is_an_alarm_until_an_operator_acknowledges_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let told = head(&fixture).await;
        written(&fixture, 3, "later").await;
        assert!(!hello(&fixture, (client, device), &told).await, "the log only went on");
        assert_eq!(health(&fixture).await, "ok");

        let other = Head { hash: vec![9; 32], ..told.clone() };
        let beyond = Head { seq: 4000, ..told.clone() };
        assert!(hello(&fixture, (client, device), &other).await);
        assert!(!hello(&fixture, (client, device), &other).await, "one open alarm for each device");
        assert!(!hello(&fixture, (client, device), &beyond).await);
        let raised = alarms(&fixture).await;
        assert_eq!((raised.len(), raised[0].device_id), (1, Some(device)));
        assert!(health(&fixture).await.starts_with("degraded"));

        let operator = signed_in(&fixture, Role::Operator).await;
        let support = signed_in(&fixture, Role::Support).await;
        let form = format!("/audit/alarms/{}", raised[0].entry);
        for (cookie, offered) in [(&operator, true), (&support, false)] {
            let (_, page) = page(&fixture, "/audit", cookie).await;
            assert!(
                page.contains(&device.to_string()) && page.contains("rewritten behind the board"),
                "{page}"
            );
            assert_eq!(page.contains(&format!("action=\"{form}\"")), offered);
        }
        let why = [("reason", "The disk was put back from a copy")];
        assert_eq!(post(&fixture, &form, &support, &why).await.0.status, StatusCode::FORBIDDEN);
        assert_eq!(
            post(&fixture, &form, &operator, &why[..0]).await.0.status,
            StatusCode::UNPROCESSABLE_ENTITY
        );
        assert_eq!(alarms(&fixture).await.len(), 1);
        assert_eq!(post(&fixture, &form, &operator, &why).await.0.status, StatusCode::SEE_OTHER);
        assert_eq!(post(&fixture, &form, &operator, &why).await.0.status, StatusCode::NOT_FOUND);
        assert_eq!(health(&fixture).await, "ok");
        let mut tx = fixture.app.db.read().await.unwrap();
        let log = audit::page(&mut tx, None, 1).await.unwrap();
        assert_eq!(log[0].entry.action, Action::AlarmAcknowledged);
        assert_eq!(log[0].entry.reason, "The disk was put back from a copy");
        drop(tx);
        assert!(!hello(&fixture, (client, device), &other).await, "what was acknowledged stays so");
        assert!(hello(&fixture, (client, device), &beyond).await, "another head is another alarm");
    })
    .await;
}

#[tokio::test]
async fn many_alarms_of_one_cause_are_ended_together_and_those_after_them_stand() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let told = head(&fixture).await;
        let raise = async |number: u8| {
            let (_, device) = fixture.enrolled(client, &format!("{number}-UUID")).await;
            let other = Head { hash: vec![number; 32], ..told.clone() };
            assert!(hello(&fixture, (client, device), &other).await);
        };
        for number in 1..=22 {
            raise(number).await;
        }
        let operator = signed_in(&fixture, Role::Operator).await;
        let (_, said) = page(&fixture, "/audit", &operator).await;
        assert_eq!(said.matches("role=\"alert\"").count(), 20, "no page without end");
        assert!(said.contains("22 alarms stand; the first 20 are shown"), "{said}");
        assert!(said.contains("22 to acknowledge") && said.contains("Acknowledge all 22"));
        let form = said.split("<button name=\"all\"").next().unwrap().rsplit("action=\"").next().unwrap();
        let form = form.split('"').next().unwrap();

        // One more, after the page was shown.
        raise(23).await;
        let fields = [("reason", "The disk was put back from a copy"), ("all", "yes")];
        assert_eq!(post(&fixture, form, &operator, &fields).await.0.status, StatusCode::SEE_OTHER);
        let left = alarms(&fixture).await;
        assert_eq!(left.len(), 1, "what nobody had seen stands");
        assert_ne!(form, format!("/audit/alarms/{}", left[0].entry));
        let (_, said) = page(&fixture, "/audit", &operator).await;
        assert!(!said.contains("name=\"all\"") && said.contains("1 to acknowledge"), "{said}");
        let mut tx = fixture.app.db.read().await.unwrap();
        let log = audit::page(&mut tx, None, 50).await.unwrap();
        let ended: Vec<_> =
            log.iter().filter(|stored| stored.entry.action == Action::AlarmAcknowledged).collect();
        assert_eq!(ended.len(), 1, "with one entry");
        assert_eq!(ended[0].entry.detail["alarms"], "22");
        drop(tx);
        assert_eq!(post(&fixture, form, &operator, &fields).await.0.status, StatusCode::NOT_FOUND);
        assert!(health(&fixture).await.starts_with("degraded"));
    })
    .await;
}

#[tokio::test]
async fn entries_that_a_restore_dropped_are_no_alarm_but_a_rewritten_epoch_is() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let told = head(&fixture).await;
        let dropped = Head { seq: told.seq + 5, hash: vec![5; 32], epoch: 1 };
        assert_eq!(standing(&fixture, &dropped).await, Standing::Beyond);
        let mut tx = fixture.app.db.write().await.unwrap();
        let entry = Entry::new(fixture.app.now(), Who::cli(), Action::BoardRestored);
        let begun = audit::begin_epoch(&mut tx, &entry, "the disk died").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((begun, head(&fixture).await.epoch), (told.seq + 1, 2));
        written(&fixture, 8, "after the restore").await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let mut walk = Walk::remembering([&told, &dropped]);
        assert_eq!(audit::walk_all(&mut tx, &mut walk).await.unwrap(), None);
        drop(tx);
        let rewritten = Head { hash: vec![6; 32], ..told.clone() };
        let later = Head { epoch: 3, ..told.clone() };
        for (head, expected) in [
            (&told, Standing::Fits),
            (&dropped, Standing::Dropped),
            (&rewritten, Standing::Other),
            (&later, Standing::Other),
        ] {
            assert_eq!(standing(&fixture, head).await, expected, "{head:?}");
            assert_eq!(walk.standing(head), expected, "{head:?}");
        }
        run(&fixture.app.db, "UPDATE audit_head SET epoch = 1").await;
        written(&fixture, 1, "an epoch back").await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let broken = audit::walk_all(&mut tx, &mut Walk::default()).await.unwrap().unwrap();
        assert!(broken.seq == told.seq + 10 && broken.why.contains("epoch"), "{broken:?}");
    })
    .await;
}

#[tokio::test]
async fn the_board_is_its_own_witness_against_a_log_that_was_written_anew() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let watch = &fixture.app.audit_watch;
        written(&fixture, 5, "as it was").await;
        let checked = watch.walk_to_the_end(&db, fixture.app.now()).await.unwrap();
        assert_eq!((checked.up_to, checked.broken), (checked.of, None));

        let owner = unlock(&db).await;
        run(&owner, "DELETE FROM audit_log WHERE seq > 3").await;
        run(&owner, "UPDATE audit_head SET seq = 3").await;
        written(&fixture, 20, "as somebody wants it").await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let (_, said) = page(&fixture, "/audit", &cookie).await;
        assert!(said.contains("another one than when the board looked before"), "{said}");
        let checked = watch.walk_to_the_end(&db, fixture.app.now()).await.unwrap();
        assert_eq!(checked.broken, None, "the chain as such holds");
        let raised = alarms(&fixture).await;
        assert_eq!((raised.len(), raised[0].device_id), (1, None));
        assert!(health(&fixture).await.starts_with("degraded"));
    })
    .await;
}

const MANY: usize = 20_000;

#[tokio::test]
async fn the_page_of_a_long_log_reads_no_more_than_a_page_and_a_step() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let client = fixture.client("Example Client", &["base"]).await;
        written(&fixture, MANY, "one of many").await;
        let (watch, now) = (&fixture.app.audit_watch, fixture.app.now());
        let (status, said) = page(&fixture, "/audit", &cookie).await;
        assert_eq!(status, StatusCode::OK);
        assert!(said.contains("holds up to entry 500 of "), "one view checks a little: {said}");
        let checked = watch.walk_to_the_end(&db, now).await.unwrap();
        assert!(checked.up_to == checked.of && checked.read == checked.of, "each entry once: {checked:?}");
        assert_eq!(watch.walk_to_the_end(&db, now).await.unwrap().read, checked.read, "nothing twice");
        written(&fixture, 3, "three more").await;
        let read = watch.walk_on(&db, now, 500).await.unwrap().read;
        assert_eq!(read, checked.read + 3);
        for path in ["/audit".to_owned(), format!("/audit?client={client}"), "/audit?actor=nobody".to_owned()]
        {
            let (status, said) = page(&fixture, &path, &cookie).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(said.contains("verified up to entry") && said.contains(", the last."), "{said}");
            assert!(said.len() < 80 * 1024, "{path}");
        }
        assert_eq!(watch.walk_on(&db, now, 500).await.unwrap().read, read, "three views walked over nothing");

        fixture.clock.advance(Duration::from_secs(25 * 3600));
        let again = watch.walk_to_the_end(&db, fixture.app.now()).await.unwrap();
        assert!(again.read - read > MANY as u64, "once a day all of it");
        assert_eq!(alarms(&fixture).await, []);
    })
    .await;
}

#[tokio::test]
async fn filters_live_in_the_address() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let one = fixture.client("One", &["base"]).await;
        let other = fixture.client("Other", &["base"]).await;
        let (_, device) = fixture.enrolled(one, "A-UUID").await;
        let actions = async |query: String| {
            let (status, said) = page(&fixture, &format!("/audit?{query}"), &cookie).await;
            assert_eq!(status, StatusCode::OK, "{query}");
            said.matches("<tr id=\"entry-").count()
        };
        let all = actions(String::new()).await;
        assert!(all > 8 && all < 50, "{all}");
        let of_one = actions(format!("client={one}")).await;
        let of_other = actions(format!("client={other}")).await;
        assert!(of_one > of_other && of_other > 0, "{of_one} {of_other}");
        let on_device = actions(format!("device={device}&client={one}")).await;
        assert!(on_device > 0 && on_device < of_one);
        assert_eq!(actions("action=client.created".into()).await, 2);
        assert_eq!(actions(format!("action=client.created&client={other}")).await, 1);
        let mine = actions("actor=consultant%40example.com".into()).await;
        assert!(mine > 0 && mine < all);
        let today = fixture.app.now().to_datetime().date();
        assert_eq!(actions(format!("since={today}&until={today}")).await, all);
        assert_eq!(actions("until=2020-01-01".into()).await, 0);
        assert_eq!(actions("since=2999-01-01T00:00:00Z".into()).await, 0);
        for wrong in ["client=x", "device=1", "action=nothing", "since=yesterday", "until=2026-13-01"] {
            let (status, said) = page(&fixture, &format!("/audit?{wrong}"), &cookie).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
            assert!(said.contains(wrong.split_once('=').unwrap().1), "{said}");
        }
        written(&fixture, 120, "pages").await;
        let (_, first) = page(&fixture, "/audit?actor=test", &cookie).await;
        let older = first.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
        let older = older.replace("&#38;", "&").replace("&amp;", "&");
        assert!(older.contains("actor=test&before="), "{older}");
        let (_, second) = page(&fixture, &older, &cookie).await;
        assert!(second.contains("<tr id=\"entry-") && second.contains("Newest entries"));
    })
    .await;
}

#[tokio::test]
async fn an_export_is_checked_without_the_database_and_a_changed_byte_is_named() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let early = Told { by: None, head: head(&fixture).await };
        written(&fixture, 1200, "emoji 🙂, \"quotes\" and עברית").await;
        let answer = ask(&fixture, Method::GET, "/audit.jsonl", Some(&cookie), "http://board.test").await;
        let (parts, text) = read(answer).await;
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/x-ndjson");
        let late = Told { by: Some("mac".into()), head: head(&fixture).await };
        let entries = usize::try_from(late.head.seq).unwrap();
        assert_eq!(text.lines().count(), entries);
        let wrong = Told { by: None, head: Head { hash: vec![1; 32], ..late.head.clone() } };
        let beyond = Told { by: None, head: Head { seq: late.head.seq + 1, ..late.head.clone() } };
        let told = [early, late, wrong, beyond];
        let walked = |text: &str| {
            let mut walk = Walk::remembering(told.iter().map(|told| &told.head));
            let broken = read_export(text.as_bytes(), &mut walk).unwrap();
            (walk, broken)
        };
        let (walk, broken) = walked(&text);
        assert_eq!(broken, None);
        let compared = compare_heads(&walk, &told, true);
        assert_eq!((compared.fit, compared.outside, compared.differ.len()), (2, 1, 1));
        assert_eq!(compare_heads(&walk, &told, false).differ.len(), 2, "a database has to have them all");

        let lines: Vec<&str> = text.lines().collect();
        let changed = text.replacen("emoji", "Emoji", 600);
        assert_eq!(walked(&changed).1.unwrap().seq, told[0].head.seq + 1);
        let gap = [&lines[..20], &lines[21..]].concat().join("\n");
        assert_eq!(walked(&gap).1.unwrap().seq, 22);
        let (walk, broken) = walked(&lines[100..].join("\n"));
        assert_eq!((walk.began(), broken), (101, None), "a part of the log is checked as a part");
        assert_eq!(walk.standing(&told[0].head), Standing::Before);
        assert!(
            read_export("{}".as_bytes(), &mut Walk::default()).unwrap_err().to_string().contains("line 1")
        );
        assert!(read_export("".as_bytes(), &mut Walk::default()).is_err());
    })
    .await;
}

#[tokio::test]
async fn a_spreadsheet_takes_nothing_of_the_csv_for_a_formula() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        written(&fixture, 501, "=HYPERLINK(\"http://evil.example\")").await;
        let answer =
            ask(&fixture, Method::GET, "/audit.csv?actor=test", Some(&cookie), "http://board.test").await;
        let (parts, text) = read(answer).await;
        let name = parts.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(name.starts_with("attachment; filename=\"audit-"), "{name}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap().len(), 11);
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 501, "the filter holds, over more than one part");
        assert!(rows.iter().all(|row| row[9].starts_with("'=HYPERLINK")), "{:?}", rows[0]);
    })
    .await;
}
