//! Text in an array, for a new process that must not allocate before its exec (`spawn`).
//!
//! Formatting a number does not allocate, and neither does anything here.

use std::ffi::CStr;
use std::{fmt, io};

/// A text of fewer than `N` bytes. What does not fit is an error, and nothing of it is taken.
pub struct FixedText<const N: usize> {
    /// The text, followed by zeros: there is always one.
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> FixedText<N> {
    pub fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Empty if it is not UTF-8.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// For a system call. Ends at the first zero byte, if there is one in the text.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    pub fn push(&mut self, bytes: &[u8]) -> fmt::Result {
        let end = self.length + bytes.len();
        if end >= N {
            return Err(fmt::Error);
        }
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Removes the last byte.
    pub fn pop(&mut self) {
        self.length = self.length.saturating_sub(1);
        if let Some(last) = self.bytes.get_mut(self.length) {
            *last = 0;
        }
    }
}

impl<const N: usize> io::Write for FixedText<N> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map(|()| bytes.len()).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<const N: usize> fmt::Write for FixedText<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn text_that_does_not_fit_is_refused() {
        let mut text = FixedText::<8>::new();
        assert!(write!(text, "{}-{}", 42, 7).is_ok());
        assert_eq!(text.as_c_str(), c"42-7");
        assert!(text.push(b"1234").is_err());
        assert!(text.push(b"123").is_ok());
        assert_eq!(text.as_bytes(), b"42-7123");
    }
}
