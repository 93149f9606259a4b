/// A byte string that two people write the same way: labels and fixed-size parts as they are, integers big-endian,
/// everything of variable length behind a u32 big-endian length.
#[derive(Clone, Debug, Default)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// Starts with a label: ASCII, constant, without a prefix.
    pub fn labelled(label: &'static str) -> Self {
        Self(label.as_bytes().to_vec())
    }

    pub fn empty() -> Self {
        Self::default()
    }

    /// A part whose size is always the same: an id, a digest.
    #[must_use]
    pub fn fixed<const N: usize>(mut self, part: &[u8; N]) -> Self {
        self.0.extend_from_slice(part);
        self
    }

    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A part of variable length.
    ///
    /// # Panics
    /// When it is 4 GiB or longer, which no input of ours can be.
    #[must_use]
    pub fn part(mut self, part: &[u8]) -> Self {
        let Ok(length) = u32::try_from(part.len()) else { panic!("a part of 4 GiB") };
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}
