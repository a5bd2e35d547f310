//! Hints: what the user may have meant by a command that cannot be run.

use std::ffi::OsStr;
use std::os::unix::process::parent_id;
use std::path::Path;

use crate::term::text::show_words;

/// Reserved words, and utilities that shells have built in and that make sense at the start of a script
/// (POSIX.1-2024, XCU 2.4 and 2.15).
const SHELL_WORDS: &[&str] = &[
    "!", ".", ":", "[[", "case", "command", "eval", "exec", "export", "for", "if", "popd", "pushd", "read", "set",
    "source", "time", "trap", "ulimit", "umask", "unset", "until", "while", "{",
];

/// Words that users of similar programs try, and the mode that does it.
const MODES: [(&str, &str); 8] = [
    ("check", "--check"),
    ("jobs", "--list"),
    ("kill", "--stop"),
    ("list", "--list"),
    ("log", "--log"),
    ("status", "--list"),
    ("stop", "--stop"),
    ("tail", "--log -f"),
];

/// What runs a script with this ending.
const INTERPRETERS: [(&str, &str); 6] =
    [("js", "node"), ("php", "php"), ("pl", "perl"), ("py", "python3"), ("rb", "ruby"), ("sh", "sh")];

/// For a word without a slash that names no file in PATH: often it is something that only a shell knows.
pub fn for_missing(command: &OsStr) -> Option<String> {
    let text = command.to_str().filter(|text| !text.is_empty() && !text.contains(char::is_control))?;
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if text == "cd" {
        Some("cd only affects the shell that it runs in; use -C DIR".into())
    } else if let Some((_, mode)) = MODES.iter().find(|(word, _)| *word == text) {
        Some(format!("did you mean 'detach {mode}'?"))
    } else if SHELL_WORDS.contains(&text) {
        Some(format!("a shell can run it: detach sh -c '{text} …'"))
    } else if text.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name)) {
        Some("to set a variable for the command: detach env NAME=VALUE COMMAND".into())
    } else if text.contains(|letter| " ;|&<>(){}$`*?~".contains(letter)) {
        Some(format!("a shell can run it: detach sh -c '{}'", text.replace('\'', r"'\''")))
    } else if could_be_alias(text) {
        Some("if it is an alias, first type: alias detach='detach '".into())
    } else {
        None
    }
}

/// Whether the calling shell may know the word. fish does not expand the word behind an alias.
fn could_be_alias(text: &str) -> bool {
    let shell = std::fs::read_link(format!("/proc/{}/exe", parent_id())).unwrap_or_default();
    let is_fish = shell.file_name() == Some(OsStr::new("fish"));
    let is_word = text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
    is_word && !is_fish
}

/// For a script without the permission to be executed.
pub fn for_not_executable(path: &Path, interpreter: Option<&OsStr>) -> Option<String> {
    let ending = path.extension().and_then(OsStr::to_str);
    let known = INTERPRETERS.iter().find(|(known, _)| ending == Some(*known)).map(|(_, program)| *program);
    let program =
        interpreter.and_then(|path| Path::new(path).file_name()?.to_str()).filter(|name| *name != "env").or(known);
    let path = show_words(std::iter::once(path.as_os_str()));
    program.map(|program| format!("make it executable: chmod +x {path}, or run: detach {program} {path}"))
}

/// For a command that failed at once, and whose first word asks for a password on the terminal.
pub fn for_failed(command: &OsStr) -> Option<&'static str> {
    (Path::new(command).file_name() == Some(OsStr::new("sudo")))
        .then_some("sudo cannot ask for a password without a terminal; use 'sudo detach COMMAND'")
}
