//! A reader that cannot leave its bytes.

/// What is wrong at the place being read; the caller adds file, key or tensor.
#[derive(Debug)]
pub struct Fault(pub String);

/// A position in a file's bytes. Every read is checked against what is left.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    /// The next `length` bytes, however large the claim.
    pub fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8], Fault> {
        let left = &self.bytes[self.position..];
        let taken = usize::try_from(length).ok().and_then(|n| left.get(..n)).ok_or_else(|| {
            Fault(format!(
                "truncated: {what} needs {length} bytes at offset {}, {} are left",
                self.position,
                left.len()
            ))
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let bytes = self.take(N as u64, what)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: 64-bit length, then UTF-8 without a terminator.
    pub fn str(&mut self, what: &str) -> Result<&'a str, Fault> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes)
            .map_err(|e| Fault(format!("{what} is not UTF-8 after {} bytes", e.valid_up_to())))
    }
}
