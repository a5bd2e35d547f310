//! What is written about the program agrees with the program.
//!
//! The options of the help, the manual page and the README, the version, and how both pages look. The completions
//! have a module of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::support::{Run, Sandbox, is_installed};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The options that `--help` lists: the first words of its lines that begin with a dash.
fn options_of_help() -> BTreeSet<String> {
    let help = Sandbox::new().detach(["--help"]).stdout;
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let names = lines.flat_map(|line| line.split("  ").next().unwrap().split([' ', ',', '[']));
    names.filter(|name| name.starts_with('-')).map(str::to_owned).collect()
}

/// The options that headings of the manual page name.
fn options_of_manual() -> BTreeSet<String> {
    let manual = fs::read_to_string(root().join("man/detach.1")).unwrap();
    let headings = manual.split(".TP\n").skip(1).filter_map(|item| item.lines().next());
    let headings = headings.filter(|line| line.starts_with(".BR \\-") || line.starts_with(".B \\-"));
    let names = headings.flat_map(|line| line.split([' ', '"', ','])).map(|word| word.replace('\\', ""));
    names.filter(|name| name.starts_with('-')).collect()
}

#[test]
fn manual_names_the_options_of_help_and_no_others() {
    let options = options_of_help();
    assert!(options.contains("--settle") && options.contains("-o"), "{options:?}");
    assert_eq!(options, options_of_manual());
}

#[test]
fn manual_renders_without_a_warning() {
    if !is_installed("groff") {
        return;
    }
    let page = root().join("man/detach.1");
    let run = Run::of(Sandbox::new().command("groff").args(["-man", "-ww", "-Kutf8", "-Tutf8"]).arg(page));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("User Commands"), "{}", run.stdout);
}

#[test]
fn version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(Sandbox::new().detach(["--version"]).stdout, format!("detach {version}\n"));
    for (file, text) in [("man/detach.1", format!("\"detach {version}\"")), ("CHANGELOG.md", format!("## {version}"))] {
        assert!(fs::read_to_string(root().join(file)).unwrap().contains(&text), "{file}");
    }
}

#[test]
fn help_fits_a_terminal_of_80_columns() {
    let run = Sandbox::new().detach(["--help"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    for line in run.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn options_that_the_readme_names_exist() {
    let options = options_of_help();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let calls = readme.split('`').filter(|text| text.starts_with("detach -") || text.starts_with("--"));
    let named = calls.flat_map(str::split_whitespace).filter(|word| word.starts_with("--") && word.len() > 2);
    let named = named.map(|word| word.split('=').next().unwrap());
    let unknown: Vec<&str> = named.filter(|word| !options.contains(*word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
