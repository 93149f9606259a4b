//! Stands between two sides on loopback and keeps every byte that passes, each direction of each connection for itself.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::places::plain;

type Kept = Arc<Mutex<Vec<u8>>>;

#[derive(Clone)]
pub struct Recorder {
    pub address: String,
    target: watch::Sender<String>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

#[derive(Clone, Default)]
struct Connection {
    asked: Kept,
    answered: Kept,
}

/// A request of HTTP/1.1 and its response, with bodies as they were meant: pieces joined, gzip opened.
pub struct Exchange {
    /// Method and path, with `{id}` for what differs from run to run.
    pub name: String,
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

impl Recorder {
    /// Listens on a free port. Connections go to the address that [`Recorder::point`] named last.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: listener.local_addr().unwrap().to_string(),
            target: watch::Sender::new(String::new()),
            connections: Arc::default(),
        };
        let copy = recorder.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(copy.clone().carry(near));
            }
        });
        recorder
    }

    pub fn point(&self, target: &str) {
        self.target.send_replace(target.trim_start_matches("http://").to_owned());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn carry(self, near: TcpStream) {
        let target = self.target.borrow().clone();
        let Ok(far) = TcpStream::connect(target).await else { return };
        let connection = Connection::default();
        self.connections.lock().unwrap().push(connection.clone());
        let (from_near, to_near) = near.into_split();
        let (from_far, to_far) = far.into_split();
        tokio::join!(pump(from_near, to_far, connection.asked), pump(from_far, to_near, connection.answered));
    }

    /// Everything so far, as bytes: of each connection what was asked, and what was answered.
    pub fn bytes(&self) -> Vec<[Vec<u8>; 2]> {
        let connections = self.connections.lock().unwrap();
        let copy = |kept: &Kept| kept.lock().unwrap().clone();
        connections.iter().map(|one| [copy(&one.asked), copy(&one.answered)]).collect()
    }

    /// Everything so far, as HTTP/1.1.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.bytes().iter().flat_map(|[asked, answered]| exchanges(asked, answered)).collect()
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, kept: Kept) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // Before it is passed on: who waited for an answer finds it here.
        kept.lock().unwrap().extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

fn exchanges(mut asked: &[u8], mut answered: &[u8]) -> Vec<Exchange> {
    let mut found = Vec::new();
    while let Some(head) = take_head(&mut asked) {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(header(&head, "transfer-encoding").is_none(), "no form is sent in pieces: {line}");
        let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        let request = [head.as_bytes(), take(&mut asked, length)].concat();
        let response = take_response(&mut answered);
        found.push(Exchange { name: format!("{method} {}", plain(path)), request, response });
    }
    assert!(asked.is_empty() && answered.is_empty(), "something of a connection was not understood as HTTP");
    found
}

/// With its interim responses; empty when the board hasn't answered.
fn take_response(rest: &mut &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(head) = take_head(rest) {
        let status: u16 = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        whole.extend_from_slice(head.as_bytes());
        if status < 200 {
            continue;
        }
        let body = if status == 204 || status == 304 {
            Vec::new()
        } else if header(&head, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            take_chunks(rest)
        } else {
            let length = header(&head, "content-length").map_or(usize::MAX, |text| text.parse().unwrap());
            take(rest, length).to_vec()
        };
        match header(&head, "content-encoding") {
            None => whole.extend(body),
            Some("gzip") => whole.extend(unzip(&body)),
            Some(other) => panic!("the search can't open {other}"),
        }
        break;
    }
    whole
}

fn take_head(rest: &mut &[u8]) -> Option<String> {
    let end = rest.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some(String::from_utf8_lossy(take(rest, end)).into_owned())
}

/// At most so many bytes: the last answer may not be there yet.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length.min(rest.len()));
    *rest = left;
    taken
}

fn take_chunks(rest: &mut &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(take(rest, end + 2)).trim().to_owned();
        let size = usize::from_str_radix(&size, 16).expect("the size of a piece");
        body.extend_from_slice(take(rest, size));
        take(rest, 2);
        if size == 0 {
            break;
        }
    }
    body
}

fn unzip(body: &[u8]) -> Vec<u8> {
    let mut opened = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut opened).expect("it is gzip");
    opened
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[test]
fn pieces_are_joined_gzip_is_opened_and_each_answer_belongs_to_its_request() {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut zipped, b"the script").unwrap();
    let zipped = zipped.finish().unwrap();
    let asked = b"GET /static/a.js?v=1 HTTP/1.1\r\nhost: x\r\n\r\nPOST /clients/01890000-0000-7000-8000-000000000000/secrets HTTP/1.1\r\nContent-Length: 3\r\n\r\na=bGET /clients HTTP/1.1\r\n\r\nGET /events HTTP/1.1\r\n\r\n";
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", zipped.len());
    let rest = b"HTTP/1.1 303 See Other\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ncana\r\n2\r\nry\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n";
    let found = exchanges(asked, &[head.as_bytes(), &zipped, rest].concat());
    let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["GET /static/a.js", "POST /clients/{id}/secrets", "GET /clients", "GET /events"]);
    assert!(found[0].response.ends_with(b"\r\n\r\nthe script"));
    assert!(found[1].request.ends_with(b"a=b") && found[1].response.starts_with(b"HTTP/1.1 303"));
    assert!(found[2].response.ends_with(b"\r\n\r\ncanary") && found[3].response.ends_with(b"data: "));
}
