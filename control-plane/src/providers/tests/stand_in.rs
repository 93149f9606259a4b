//! A server that plays OpenRouter's key API as its public documentation has it, on loopback, with faults on demand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Keys that the list gives at once.
const PAGE: usize = 100;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// 429, with `Retry-After` in seconds.
    Busy(Option<u64>),
    /// A status, and nothing done.
    Status(u16),
    /// Done, but the answer comes after the asker's patience.
    Slow,
    /// Done, but the answer breaks off.
    Lost,
    /// Done, and the answer is nothing that the documentation knows.
    Garbled,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub hash: String,
    pub name: String,
    pub value: String,
    pub limit: f64,
    pub disabled: bool,
    pub usage_monthly: f64,
    pub expires_at: Option<String>,
}

#[derive(Default)]
pub struct Inside {
    pub management: String,
    pub keys: Vec<Key>,
    /// The next request of a method meets the first fault that is meant for it.
    pub faults: VecDeque<(Method, Fault)>,
    /// Methods, in order.
    pub asked: Vec<Method>,
    made: usize,
}

#[derive(Clone)]
pub struct StandIn {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

type Shared = State<Arc<Mutex<Inside>>>;

impl StandIn {
    pub async fn start(management: &str) -> Self {
        let inside = Inside { management: management.to_owned(), ..Inside::default() };
        let inside = Arc::new(Mutex::new(inside));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/api/v1/keys", get(list).post(make))
            .route("/api/v1/keys/{hash}", patch(change).delete(delete))
            .layer(axum::middleware::from_fn_with_state(inside.clone(), faulty))
            .with_state(inside.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        Self { address, inside }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    pub fn fault(&self, method: Method, fault: Fault) {
        self.inside().faults.push_back((method, fault));
    }

    pub fn asked(&self, method: &Method) -> usize {
        self.inside().asked.iter().filter(|asked| *asked == method).count()
    }

    /// Keys that work, of this name.
    pub fn working(&self, name: &str) -> Vec<Key> {
        self.inside().keys.iter().filter(|key| key.name == name && !key.disabled).cloned().collect()
    }
}

async fn faulty(State(inside): Shared, request: Request, next: axum::middleware::Next) -> Response {
    let fault = {
        let mut inside = inside.lock().unwrap();
        inside.asked.push(request.method().clone());
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if sent != Some(format!("Bearer {}", inside.management).as_str()) {
            let body = json!({ "error": { "code": 401, "message": "Missing Authentication header" } });
            return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
        }
        let meant = inside.faults.iter().position(|(method, _)| method == request.method());
        meant.and_then(|at| inside.faults.remove(at)).map(|(_, fault)| fault)
    };
    match fault {
        None => next.run(request).await,
        Some(Fault::Busy(after)) => {
            let body = json!({ "error": { "code": 429, "message": "Rate limit exceeded" } });
            let mut answer = (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response();
            if let Some(after) = after {
                answer.headers_mut().insert(header::RETRY_AFTER, after.into());
            }
            answer
        }
        Some(Fault::Status(status)) => {
            let body = json!({ "error": { "code": status, "message": "no" } });
            (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
        }
        Some(Fault::Slow) => {
            let answer = next.run(request).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            answer
        }
        Some(Fault::Lost) => {
            next.run(request).await;
            let parts = [Ok(Bytes::from_static(b"{\"data\":")), Err(std::io::Error::other("cut"))];
            (StatusCode::CREATED, Body::from_stream(stream::iter(parts))).into_response()
        }
        Some(Fault::Garbled) => {
            next.run(request).await;
            let whole =
                stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"<html>canary-garbled</html>"))]);
            (StatusCode::CREATED, Body::from_stream(whole)).into_response()
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    include_disabled: String,
}

async fn list(State(inside): Shared, Query(query): Query<Listing>) -> Json<Value> {
    let inside = inside.lock().unwrap();
    let shown = inside.keys.iter().filter(|key| query.include_disabled == "true" || !key.disabled);
    let page: Vec<Value> = shown.skip(query.offset).take(PAGE).map(Key::as_listed).collect();
    Json(json!({ "data": page }))
}

async fn make(State(inside): Shared, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut inside = inside.lock().unwrap();
    assert_eq!(body["limit_reset"], "monthly");
    inside.made += 1;
    let key = Key {
        hash: format!("hash-{}", inside.made),
        name: body["name"].as_str().unwrap().to_owned(),
        value: format!("sk-or-v1-canary-{:030}", inside.made),
        limit: body["limit"].as_f64().unwrap(),
        disabled: false,
        usage_monthly: 0.0,
        expires_at: None,
    };
    let answer = json!({ "data": key.as_listed(), "key": key.value });
    inside.keys.push(key);
    (StatusCode::CREATED, Json(answer))
}

async fn change(State(inside): Shared, Path(hash): Path<String>, Json(body): Json<Value>) -> Response {
    let mut inside = inside.lock().unwrap();
    let Some(key) = inside.keys.iter_mut().find(|key| key.hash == hash) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(limit) = body["limit"].as_f64() {
        assert_eq!(body["limit_reset"], "monthly");
        key.limit = limit;
    }
    if let Some(disabled) = body["disabled"].as_bool() {
        key.disabled = disabled;
    }
    Json(json!({ "data": key.as_listed() })).into_response()
}

async fn delete(State(inside): Shared, Path(hash): Path<String>) -> Response {
    let mut inside = inside.lock().unwrap();
    let before = inside.keys.len();
    inside.keys.retain(|key| key.hash != hash);
    match inside.keys.len() == before {
        true => StatusCode::NOT_FOUND.into_response(),
        false => Json(json!({ "deleted": true })).into_response(),
    }
}

impl Key {
    fn as_listed(&self) -> Value {
        json!({
            "hash": self.hash,
            "name": self.name,
            // One example of the documentation shows the key here.
            "label": self.value,
            "disabled": self.disabled,
            "limit": self.limit,
            "limit_remaining": self.limit - self.usage_monthly,
            "limit_reset": "monthly",
            "include_byok_in_limit": false,
            "usage": self.usage_monthly,
            "usage_daily": self.usage_monthly,
            "usage_weekly": self.usage_monthly,
            "usage_monthly": self.usage_monthly,
            "created_at": "2026-11-24T10:30:00Z",
            "updated_at": null,
            "expires_at": self.expires_at,
        })
    }
}
