//! Static files over HTTP: each encoding of a file is a representation of its own.

use std::net::{IpAddr, SocketAddr};

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::response::Parts;
use axum::http::{Request, header};
use tower::ServiceExt as _;

use crate::db::testing::on_both;
use crate::router;
use crate::testing::Fixture;
use crate::web::assets;

async fn fetch(fixture: &Fixture, accepted: Option<&str>) -> (Parts, Vec<u8>) {
    let mut request = Request::get(assets::href("console.js")).header(header::HOST, "board.test");
    if let Some(accepted) = accepted {
        request = request.header(header::ACCEPT_ENCODING, accepted);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let address = SocketAddr::from((IpAddr::from([192, 0, 2, 1]), 4711));
    request.extensions_mut().insert(ConnectInfo(address));
    let answer = router::console(fixture.app.clone()).oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    (parts, to_bytes(body, usize::MAX).await.unwrap().to_vec())
}

#[tokio::test]
async fn gzip_goes_to_whom_it_is_good_for_under_an_etag_of_its_own() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let asset = assets::find("console.js").unwrap();
        let (zipped, zipped_bytes) = fetch(&fixture, Some("br, gzip;q=0.8")).await;
        assert_eq!(zipped.headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(zipped_bytes, asset.gzip);
        let mut tags = vec![zipped.headers[header::ETAG].clone()];
        for accepted in [None, Some("gzip;q=0")] {
            let (plain, bytes) = fetch(&fixture, accepted).await;
            assert!(!plain.headers.contains_key(header::CONTENT_ENCODING));
            assert_eq!(bytes, asset.bytes);
            assert_eq!(plain.headers[header::VARY], zipped.headers[header::VARY]);
            tags.push(plain.headers[header::ETAG].clone());
        }
        assert_eq!(zipped.headers[header::VARY], "accept-encoding");
        assert!(tags[0] != tags[1] && tags[1] == tags[2], "{tags:?}");
    })
    .await;
}
