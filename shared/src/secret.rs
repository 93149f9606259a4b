//! A value that must not be seen: no Display, no Serialize, a redacted Debug, wiped when dropped.

use std::io::{self, Read as _};

use zeroize::Zeroize;

/// The most that a secret may hold, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

/// Whatever another program writes, but for one line end behind it. What is longer than [`MAX_LEN`] stays so, for the
/// caller to refuse.
pub fn read_piped(from: impl io::Read) -> Result<Secret<Vec<u8>>, io::Error> {
    // Room from the start: a growing buffer would leave copies behind. One byte more than a value and its line end may
    // have shows that it is too long.
    let most = MAX_LEN + 3;
    let mut value = Secret::new(Vec::with_capacity(most));
    from.take(most as u64).read_to_end(&mut value.0)?;
    value.drop_line_end();
    Ok(value)
}

/// The next line, without its end, or what there is before the end of the input. It is read byte by byte, so that whoever
/// reads the next line finds it: give it nothing that reads ahead and is thrown away.
///
/// `None` when the line is longer than a secret may be. Its rest is not read and is no line of its own.
pub fn read_line(mut from: impl io::Read) -> Result<Option<Secret<Vec<u8>>>, io::Error> {
    let most = MAX_LEN + 2;
    let mut value = Secret::new(Vec::with_capacity(most));
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => value.0.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if value.0.last() == Some(&b'\n') {
            break;
        }
        if value.0.len() == most {
            return Ok(None);
        }
    }
    value.drop_line_end();
    Ok(Some(value))
}

pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<Vec<u8>> {
    fn drop_line_end(&mut self) {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
            if self.0.last() == Some(&b'\r') {
                self.0.pop();
            }
        }
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de, T: Zeroize + serde::Deserialize<'de>> serde::Deserialize<'de> for Secret<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_dropped_and_nothing_else() {
        let table: [(&[u8], &[u8]); 7] = [
            (b"token\n", b"token"),
            (b"token\r\n", b"token"),
            (b"token", b"token"),
            (b" two\nlines\n\n", b" two\nlines\n"),
            (b"\n", b""),
            (b"", b""),
            (b"a\r", b"a\r"),
        ];
        for (piped, expected) in table {
            assert_eq!(read_piped(piped).unwrap().expose(), expected);
        }
        let longest = [vec![b'x'; MAX_LEN], b"\r\n".to_vec()].concat();
        assert_eq!(read_piped(&*longest).unwrap().expose().len(), MAX_LEN);
        assert!(read_piped(&*vec![b'x'; 10 * MAX_LEN]).unwrap().expose().len() > MAX_LEN);
    }

    #[test]
    fn lines_are_read_one_by_one_and_one_that_is_too_long_is_none() {
        let mut input: &[u8] = b"first\r\n\nthird\nlast";
        for line in ["first", "", "third", "last", "", ""] {
            assert_eq!(read_line(&mut input).unwrap().unwrap().expose(), line.as_bytes());
        }
        let longest = [vec![b'x'; MAX_LEN], b"\r\nnext".to_vec()].concat();
        let mut input = &*longest;
        assert_eq!(read_line(&mut input).unwrap().unwrap().expose().len(), MAX_LEN);
        assert_eq!(read_line(&mut input).unwrap().unwrap().expose(), b"next");
        assert!(read_line(&*vec![b'x'; 10 * MAX_LEN]).unwrap().is_none());
    }
}
