//! What a script prints, on its way to the board: text, in chunks that fit a frame, within a budget.

use std::future::Future;
use std::pin::Pin;

use shared::ids::AttemptId;
use shared::protocol::steps::{MAX_CHUNK, MAX_OUTPUT, OutputChunk};
use tokio::sync::mpsc;

/// Takes masked text.
pub trait Sink: Send {
    fn push<'a>(&'a mut self, text: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// Called about every 200 ms and at the end.
    fn flush(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Bytes to text: what isn't UTF-8 is replaced, also NUL, which no database of ours takes in a text.
#[derive(Default)]
pub struct Decoder {
    rest: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let complete = self.rest.len() - unfinished(&self.rest);
        let text = clean(&self.rest[..complete]);
        self.rest.drain(..complete);
        text
    }

    pub fn finish(&mut self) -> String {
        clean(&std::mem::take(&mut self.rest))
    }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    for at in start..bytes.len() {
        if let Err(error) = std::str::from_utf8(&bytes[at..])
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return bytes.len() - at;
        }
    }
    0
}

fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

/// Collects text and sends it on as numbered chunks.
pub struct ChunkSink {
    attempt_id: AttemptId,
    next: u64,
    pending: String,
    sent: u64,
    dropped: u64,
    to: mpsc::Sender<OutputChunk>,
}

impl ChunkSink {
    pub fn new(attempt_id: AttemptId, next: u64, to: mpsc::Sender<OutputChunk>) -> Self {
        Self { attempt_id, next, pending: String::new(), sent: 0, dropped: 0, to }
    }

    async fn send(&mut self, most: usize) {
        let at = self.pending.floor_char_boundary(most);
        let rest = self.pending.split_off(at);
        let text = std::mem::replace(&mut self.pending, rest);
        if text.is_empty() {
            return;
        }
        self.sent += text.len() as u64;
        let chunk = OutputChunk { attempt_id: self.attempt_id, seq: self.next, text };
        self.next += 1;
        // Nobody takes it any more: the attempt goes on without its output.
        let _ = self.to.send(chunk).await;
    }

    async fn take(&mut self, text: &str) {
        let room = usize::try_from(MAX_OUTPUT - NOTICE.len() as u64).unwrap_or(usize::MAX);
        let used = usize::try_from(self.sent).unwrap_or(usize::MAX).saturating_add(self.pending.len());
        let kept = text.floor_char_boundary(room.saturating_sub(used).min(text.len()));
        self.pending.push_str(&text[..kept]);
        if kept < text.len() {
            if self.dropped == 0 {
                self.pending.push_str(NOTICE);
            }
            self.dropped += (text.len() - kept) as u64;
        }
        while self.pending.len() >= MAX_CHUNK {
            self.send(MAX_CHUNK).await;
        }
    }
}

const NOTICE: &str = "\n[more output than is kept; the rest is left out]\n";

impl Sink for ChunkSink {
    fn push<'a>(&'a mut self, text: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.take(text))
    }

    fn flush(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.send(MAX_CHUNK))
    }
}

/// Keeps the end of what was printed, for a sentence about it.
pub struct Tail {
    text: String,
    most: usize,
}

impl Tail {
    pub fn new() -> Self {
        Self::of(500)
    }

    pub fn of(most: usize) -> Self {
        Self { text: String::new(), most }
    }

    pub fn finish(self) -> String {
        self.text.trim().to_owned()
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Tail {
    fn push<'a>(&'a mut self, text: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.text.push_str(text);
        let over = self.text.len().saturating_sub(self.most);
        let at = self.text.ceil_char_boundary(over);
        self.text.drain(..at);
        Box::pin(std::future::ready(()))
    }

    fn flush(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use shared::random::SystemRandom;
    use shared::time::SystemClock;

    use super::*;

    #[test]
    fn text_is_the_same_however_its_bytes_arrive() {
        let bytes = "grün – ☂ 🦀\n".as_bytes();
        for at in 0..=bytes.len() {
            for to in at..=bytes.len() {
                let mut decoder = Decoder::default();
                let text =
                    [&bytes[..at], &bytes[at..to], &bytes[to..]].map(|part| decoder.push(part)).concat();
                assert_eq!(text + &decoder.finish(), "grün – ☂ 🦀\n");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let mut decoder = Decoder::default();
        let text = decoder.push(b"a\xff\0b\xe2\x98");
        assert_eq!(text, "a\u{fffd}\u{fffd}b");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }

    #[tokio::test]
    async fn chunks_fit_their_size_and_the_budget() {
        let (to, mut from) = mpsc::channel(1000);
        let mut sink = ChunkSink::new(AttemptId::new(&SystemClock, &SystemRandom), 7, to);
        let block = "ü".repeat(50_000);
        for _ in 0..100 {
            sink.push(&block).await;
            sink.flush().await;
        }
        while !sink.pending.is_empty() {
            sink.flush().await;
        }
        drop(sink);
        let (mut total, mut seq) = (0, 7);
        let mut last = String::new();
        while let Some(chunk) = from.recv().await {
            assert!(chunk.text.len() <= MAX_CHUNK);
            assert_eq!(chunk.seq, seq);
            seq += 1;
            total += chunk.text.len() as u64;
            last = chunk.text;
        }
        assert!(total <= MAX_OUTPUT && total > MAX_OUTPUT - 1000, "{total}");
        assert!(last.ends_with(NOTICE));
    }
}
