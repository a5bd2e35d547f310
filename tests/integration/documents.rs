//! What is written about the program agrees with the program: the options in the help of the program and of its modes,
//! in the manual and in the README, the version, and the layout of help and manual. The completions have a module of
//! their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::support::help::{help, modes, options_in_help};
use crate::support::{Run, Sandbox};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// The options that the manual describes in the section SECTION or in a part of it, which begin with these lines.
fn options_in_manual(heading: &str) -> BTreeSet<String> {
    let manual = read("man/detach.1");
    let (_, section) = manual.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let ends = if heading.starts_with(".SH") { &["\n.SH"][..] } else { &["\n.SH", "\n.SS"] };
    let end = ends.iter().filter_map(|end| section.find(end)).min().unwrap_or(section.len());
    let items = section[..end].split(".TP\n").skip(1).filter_map(|item| item.lines().next());
    let items = items.filter(|line| line.starts_with(".BR \\-") || line.starts_with(".B \\-"));
    let names = items.flat_map(|line| line.split([' ', '"', ','])).map(|word| word.replace('\\', ""));
    names.filter(|name| name.starts_with('-')).collect()
}

/// The headings of the parts that describe a mode, by mode.
fn modes_in_manual() -> Vec<(String, String)> {
    let manual = read("man/detach.1");
    let headings = manual.lines().filter(|line| line.starts_with(r#".SS "detach \-\-"#));
    let mode = |heading: &str| heading.split([' ', '"']).nth(3).unwrap().replace('\\', "");
    headings.map(|heading| (mode(heading), heading.to_owned())).collect()
}

/// The options that every mode has. The manual describes them once.
fn common_options() -> BTreeSet<String> {
    ["-q", "--quiet", "-v", "--verbose", "-h", "--help"].map(str::to_owned).into()
}

#[test]
fn manual_describes_the_options_of_a_start_and_no_others() {
    let mut options = options_in_help(None);
    assert!(options.contains("--settle") && options.contains("-o"), "{options:?}");
    for mode in modes() {
        assert!(options.remove(&mode), "{mode}");
    }
    assert_eq!(options, options_in_manual(".SH OPTIONS"));
}

#[test]
fn manual_describes_the_options_of_each_mode_and_no_others() {
    let described = modes_in_manual();
    assert_eq!(described.iter().map(|(mode, _)| mode.clone()).collect::<Vec<_>>(), modes());
    for (mode, heading) in described {
        let own: BTreeSet<String> = options_in_help(Some(&mode)).difference(&common_options()).cloned().collect();
        assert_eq!(own, options_in_manual(&heading), "{mode}");
    }
}

#[test]
fn each_mode_has_the_common_options() {
    for mode in modes() {
        assert!(options_in_help(Some(&mode)).is_superset(&common_options()), "{mode}");
    }
}

#[test]
fn manual_renders_without_a_warning() {
    requires!(groff);
    let page = root().join("man/detach.1");
    let stdout =
        Run::of(Sandbox::new().command("groff").args(["-man", "-ww", "-Kutf8", "-Tutf8"]).arg(page)).succeeds();
    assert!(stdout.contains("User Commands"), "{}", stdout);
}

#[test]
fn version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(Sandbox::new().detach(["--version"]).stdout, format!("detach {version}\n"));
    for (file, text) in [("man/detach.1", format!("\"detach {version}\"")), ("CHANGELOG.md", format!("## {version}"))] {
        assert!(read(file).contains(&text), "{file}");
    }
}

#[test]
fn help_fits_a_terminal_of_80_columns_and_50_lines() {
    for text in modes().iter().map(|mode| help(Some(mode))).chain([help(None)]) {
        assert!(text.lines().count() <= 50, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn options_that_the_readme_names_exist() {
    let readme = read("README.md");
    let of_start = options_in_help(None);
    let modes = modes();
    let all: BTreeSet<String> =
        modes.iter().flat_map(|mode| options_in_help(Some(mode))).chain(of_start.clone()).collect();
    let mut count = 0;
    for call in readme.lines().flat_map(|line| line.split('`').chain(line.strip_prefix("$ "))) {
        let mut words = call.split_ascii_whitespace().peekable();
        let known = if words.next_if_eq(&"detach").is_none() {
            &all
        } else if let Some(mode) = words.next_if(|word| modes.iter().any(|mode| mode == word)) {
            &options_in_help(Some(mode))
        } else {
            &of_start
        };
        // What comes after the first other word may belong to a command.
        for option in words.take_while(|word| word.starts_with('-')) {
            // A code span of `-` stands for a stream; options of one letter may be combined.
            let name = option.split('=').next().unwrap();
            let is_long = name.starts_with("--");
            let is_known = known.contains(name)
                || !is_long && name.chars().skip(1).all(|letter| known.contains(&format!("-{letter}")));
            assert!(is_known || name.trim_start_matches('-').is_empty(), "{option} in {call}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn readme_names_every_mode() {
    let readme = read("README.md");
    for mode in modes() {
        assert!(readme.contains(&format!("`detach {mode}")), "{mode}");
    }
}
