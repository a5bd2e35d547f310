//! What a test needs from the machine: programs in PATH, or root.
//!
//! A test that cannot run prints `skipped: reason` and passes, except under `CI=true`, where it fails.

/// Ends the test when a requirement is missing: `requires!(root, strace, "notify-send")`. `root` stands for the user,
/// any other word for a program in PATH. An expression is put in parentheses: `requires!((shell.program[0]))`.
macro_rules! requires {
    (@ ($requirement:expr)) => { $requirement };
    (@ $requirement:ident) => { stringify!($requirement) };
    (@ $requirement:literal) => { $requirement };
    ($($requirement:tt),+) => {
        if !$crate::support::are_met(&[$(requires!(@ $requirement)),+]) {
            return;
        }
    };
}

/// Whether all requirements are met. Reports the first that is not.
#[track_caller]
pub fn are_met(requirements: &[&str]) -> bool {
    let missing = requirements.iter().find(|requirement| !is_met(requirement));
    match missing {
        None => return true,
        Some(&"root") => skip("only root can do this"),
        Some(program) => skip(&format!("{program} is not installed (tests/run installs it)")),
    }
    false
}

fn is_met(requirement: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match requirement {
        "root" => nix::unistd::geteuid().is_root(),
        program => std::env::split_paths(&path).any(|directory| directory.join(program).is_file()),
    }
}

/// Reports why a test cannot run here. Under CI no test may be skipped.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "skipped: {reason}");
    eprintln!("skipped: {reason}");
}
