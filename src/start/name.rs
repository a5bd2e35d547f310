//! The name of a job if the user gives none: the base name of the command, or of the script that it runs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::start::request::Request;

/// Interpreters, without the version in their names, and their one-letter options that take no value.
const INTERPRETERS: [(&str, &str); 9] = [
    ("sh", "aefhmnuvx"),
    ("bash", "aefhmnuvxilrBCEHPT"),
    ("dash", "aefmnuvxil"),
    ("zsh", "aefhmnuvxil"),
    ("fish", "iln"),
    ("python", "bBdEiIOPqsSuvx"),
    ("node", ""),
    ("ruby", "wvd"),
    ("perl", "wWtTuUX"),
];

/// The name of the job.
pub fn of_job(request: &Request) -> OsString {
    let name = request.name.as_deref().or_else(|| name_of_script(&request.command));
    let command = request.command.first().map_or(OsStr::new(""), OsString::as_os_str);
    name.unwrap_or_else(|| base_name(command)).to_owned()
}

/// The name of the script that an interpreter runs. Nothing is guessed: an option that might take a value ends the
/// search.
fn name_of_script(command: &[OsString]) -> Option<&OsStr> {
    let (program, arguments) = command.split_first()?;
    let program = base_name(program).to_str()?;
    let mut arguments = arguments.iter().map(OsString::as_os_str);
    let program = program.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    if program == "java" {
        return arguments.next().filter(|option| *option == "-jar").and(arguments.next()).map(base_name);
    }
    let (_, flags) = INTERPRETERS.iter().find(|(name, _)| *name == program)?;
    let takes_no_value = |word: &OsStr| {
        word.to_str()
            .and_then(|word| word.strip_prefix('-'))
            .is_some_and(|letters| !letters.is_empty() && letters.chars().all(|letter| flags.contains(letter)))
    };
    let word = arguments.find(|word| !takes_no_value(word))?;
    if program == "python" && word == "-m" {
        return arguments.next();
    }
    (!word.as_bytes().starts_with(b"-") && !word.is_empty()).then(|| base_name(word))
}

/// The last part of a path: basename(1).
fn base_name(command: &OsStr) -> &OsStr {
    let last = command.as_bytes().rsplit(|byte| *byte == b'/').find(|part| !part.is_empty());
    last.map_or(command, OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_of_interpreter_is_named_after_its_script() {
        for (command, name) in [
            ("make -j8", "make"),
            ("/usr/bin/make", "make"),
            ("dir/", "dir"),
            ("python3 train.py", "train.py"),
            ("/usr/bin/python3.11 -u src/train.py --fast", "train.py"),
            ("python -m http.server 8000", "http.server"),
            ("python3 -W ignore train.py", "python3"),
            ("python3 -c print(1)", "python3"),
            ("python3", "python3"),
            ("sh -c true", "sh"),
            ("sh -ec true", "sh"),
            ("bash -x ./run.sh", "run.sh"),
            ("node server.js", "server.js"),
            ("node --inspect server.js", "node"),
            ("java -jar lib/x.jar", "x.jar"),
            ("java -Xmx1g -jar x.jar", "java"),
            ("perl5.36 a.pl", "a.pl"),
            ("bashful a.sh", "bashful"),
        ] {
            let request = Request::new(command.split(' ').map(OsString::from).collect());
            assert_eq!(of_job(&request), name, "{command}");
        }
    }
}
