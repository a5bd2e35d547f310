//! Names and paths that are safe to show on a terminal, and lines that fit it.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::Utf8Chunk;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `'so'`, with control bytes and bytes that are not UTF-8 escaped.
pub fn quote(name: &OsStr) -> String {
    format!("'{}'", escape(name.as_bytes(), "'\\"))
}

/// `path` as typed, with control bytes escaped, for the end of a sentence.
pub fn show_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes(), "\\")
}

/// Like [`show_path`], with the home directory shortened to `~`.
pub fn shorten_home(path: &Path) -> String {
    let home = env::var_os("HOME").filter(|home| home.len() > 1);
    match home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => format!("~/{}", show_path(rest)),
        None => show_path(path),
    }
}

/// A command line, safe to show. A word that a shell would not take as it is stands in quotes.
pub fn show_words<'w>(words: impl Iterator<Item = &'w OsStr>) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte) || *byte >= 0x80;
    let show = |word: &OsStr| {
        let bytes = word.as_bytes();
        if !bytes.is_empty() && bytes.iter().all(is_plain) { escape(bytes, "") } else { quote(word) }
    };
    words.map(show).collect::<Vec<_>>().join(" ")
}

/// `bytes` with everything escaped that a terminal could take for a command or would not show, and the characters of
/// `also`.
pub fn escape(bytes: &[u8], also: &str) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_ascii_control() && !"\n\r\t".contains(letter) {
                // As a byte that is not UTF-8. Writing to a String cannot fail.
                let _ = write!(text, "\\x{:02x}", u32::from(letter));
            } else if letter.is_control() || is_invisible(letter) {
                text.extend(letter.escape_default());
            } else {
                if also.contains(letter) {
                    text.push('\\');
                }
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether no character of `name` can be seen.
pub fn is_blank(name: &OsStr) -> bool {
    let is_visible = |letter: char| !letter.is_whitespace() && letter.width().is_some_and(|width| width > 0);
    let is_blank = |chunk: Utf8Chunk| chunk.invalid().is_empty() && !chunk.valid().chars().any(is_visible);
    name.as_bytes().utf8_chunks().all(is_blank)
}

/// JSON in which everything is escaped that a terminal could take for a command or would not show. Only strings hold
/// such characters.
pub fn escape_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_control() || is_invisible(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(letter);
        }
    }
    text
}

/// Characters that change the order of a text (Unicode UAX #9), or that cannot be seen in it.
fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{061c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text`, or as much of it as fits in `width` columns, with a mark where it was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fitting = text.chars().take_while(|letter| {
        let columns = letter.width().unwrap_or(0);
        let fits = columns <= left;
        left = left.saturating_sub(columns);
        fits
    });
    let kept: String = fitting.collect();
    if width == 0 { String::new() } else { kept + "…" }
}

/// `text` in lines of at most `width` columns, broken at blanks. A longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a much-too-long word", 5), ["a", "much-too-long", "word"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
