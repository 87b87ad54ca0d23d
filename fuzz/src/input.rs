//! Taking numbers and pieces off a target's input. An exhausted input gives zeros, so every input is a valid
//! script and a longer one only adds to it.

/// What is left of an input.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, left) = self.0.split_at(n.min(self.0.len()));
        self.0 = left;
        taken
    }

    /// Everything left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A length byte and as many bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let n = usize::from(self.u8());
        self.take(n)
    }

    /// A [`Self::piece`] as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let bytes = self.take(N);
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: u8) -> u8 {
        self.u8() % n
    }

    /// True for one byte in `n`, and when nothing is left.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.below(n) == 0
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number that is nearly always small, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            255 => self.u64(),
            254 => u64::from(self.u32()),
            small => u64::from(small),
        }
    }

    /// [`Self::number`] in 32 bits, saturating.
    pub fn number32(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }
}
