//! A place on the system: what `make install`, the Debian package and the crate hold, and that man and the shells find
//! it there.
//!
//! The tests install the program that `cargo test` builds. The completions themselves are tested in `completions`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{DETACH, Run, Sandbox, Terminal, mode, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BASH_COMPLETION: &str = "/usr/share/bash-completion/bash_completion";

/// What is installed, below the prefix, with its permissions and the file in the repository that it is a copy of.
const FILES: [(&str, u32, &str); 5] = [
    ("bin/detach", 0o755, DETACH),
    ("share/bash-completion/completions/detach", 0o644, "completions/detach.bash"),
    ("share/fish/vendor_completions.d/detach.fish", 0o644, "completions/detach.fish"),
    ("share/man/man1/detach.1", 0o644, "man/detach.1"),
    ("share/zsh/site-functions/_detach", 0o644, "completions/_detach"),
];

/// Runs make on the Makefile of the project.
fn make(sandbox: &Sandbox, words: &[&str]) -> Run {
    Run::of(sandbox.command("make").args(["--silent", "--no-print-directory", "-C", ROOT]).args(words))
}

fn variable(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}

/// Installs the program under test into a prefix of its own, and returns that.
fn install(sandbox: &Sandbox) -> PathBuf {
    let prefix = sandbox.path("prefix");
    make(sandbox, &["install", &variable("PREFIX", &prefix), &format!("PROGRAM={DETACH}")]).succeeds_silently();
    prefix
}

/// The files below a directory by their paths in it, with their permissions and contents.
fn files_below(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(path) = directories.pop() {
        for path in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, (mode(&path), fs::read(&path).unwrap()));
            }
        }
    }
    files
}

/// The names of the files below a directory, in order.
fn names_below(directory: &Path) -> Vec<String> {
    files_below(directory).into_keys().collect()
}

/// Asks cargo about the project. It needs the home directory in which it has the index of its registry.
fn cargo(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let run = Run::of(command.args(words).args(["--offline", "--manifest-path"]).arg(format!("{ROOT}/Cargo.toml")));
    run.exits(0).stdout
}

#[test]
fn program_manual_and_completions_are_installed_and_removed() {
    requires!(make);
    let sandbox = Sandbox::new();
    let prefix = install(&sandbox);
    let expected =
        FILES.map(|(path, mode, source)| (path.to_owned(), (mode, fs::read(Path::new(ROOT).join(source)).unwrap())));
    assert!(files_below(&prefix) == BTreeMap::from(expected), "{:?}", names_below(&prefix));
    fs::write(prefix.join("share/man/man1/other.1"), "").unwrap();
    make(&sandbox, &["uninstall", &variable("PREFIX", &prefix)]).succeeds_silently();
    assert_eq!(names_below(&prefix), ["share/man/man1/other.1"]);
}

#[test]
fn each_directory_can_be_set() {
    requires!(make);
    let sandbox = Sandbox::new();
    let root = sandbox.path("a root");
    let variables = [
        &variable("DESTDIR", &root),
        "bindir=/opt/bin",
        "mandir=/opt/man",
        "bashcompletiondir=/opt/bash",
        "zshcompletiondir=/opt/zsh",
        "fishcompletiondir=/opt/fish",
    ];
    make(&sandbox, &[&["install", &format!("PROGRAM={DETACH}")], &variables[..]].concat()).succeeds_silently();
    let expected = ["bash/detach", "bin/detach", "fish/detach.fish", "man/man1/detach.1", "zsh/_detach"];
    assert_eq!(names_below(&root), expected.map(|path| format!("opt/{path}")));
    make(&sandbox, &[&["uninstall"], &variables[..]].concat()).succeeds_silently();
    assert_eq!(names_below(&root), [""; 0]);
}

#[test]
fn installation_takes_the_program_that_was_built_and_builds_none() {
    requires!(make);
    let sandbox = Sandbox::new();
    let target = sandbox.path("target");
    let build = "#!/bin/sh\necho \"$*\" >> calls\nmkdir -p \"$5/a-target/release\"\necho built > \"$5/a-target/release/detach\"\n";
    let builder = sandbox.script("cargo", &build.replace("calls", sandbox.work("calls").to_str().unwrap()));
    let prefix = sandbox.path("prefix");
    let variables = [variable("CARGO", &builder), variable("CARGO_TARGET_DIR", &target), variable("PREFIX", &prefix)];
    let make = |words: &[&str]| make(&sandbox, &[words, &variables.each_ref().map(String::as_str)].concat());
    let assert_refused = |reason: &str| {
        let run = make(&["install"]).exits(2);
        assert!(run.stderr.ends_with(&format!(" *** {reason}.  Stop.\n")), "{run:#?}");
        assert!(!prefix.exists());
    };

    let target = target.display();
    assert_refused(&format!("there is no program in {target}/*/release: run 'make' first, or set PROGRAM"));
    make(&[]).succeeds_silently();
    fs::create_dir_all(format!("{target}/other-target/release")).unwrap();
    fs::write(format!("{target}/other-target/release/detach"), "other").unwrap();
    assert_refused(&format!(
        "there are several programs; set PROGRAM to one of these: \
         {target}/a-target/release/detach {target}/other-target/release/detach"
    ));
    fs::remove_dir_all(format!("{target}/other-target")).unwrap();
    make(&["install"]).succeeds_silently();
    assert_eq!(fs::read_to_string(prefix.join("bin/detach")).unwrap(), "built\n");
    assert_eq!(sandbox.read("calls"), format!("build --release --locked --target-dir {target}\n"));
}

#[test]
fn man_finds_the_manual() {
    requires!(make, man, groff);
    let sandbox = Sandbox::new();
    let man = |variable: &str, words: &[&str]| Run::of(sandbox.command("env").args([variable, "man"]).args(words));
    let prefix = install(&sandbox);
    let system = "/usr/bin:/bin";
    let path = format!("PATH={}/bin:{system}", prefix.display());
    let pages = prefix.join("share/man");
    let page = format!("{}/man1/detach.1\n", pages.display());
    assert_eq!(man(&format!("PATH={system}"), &["-M", pages.to_str().unwrap(), "-w", "detach"]).succeeds(), page);
    assert_eq!(man(&variable("MANPATH", &pages), &["-w", "detach"]).succeeds(), page);
    assert_eq!(man(&path, &["-w", "detach"]).succeeds(), page);
    assert!(man(&path, &["detach"]).succeeds().starts_with("DETACH(1)"));
}

/// Starts a shell with an installation in PATH and XDG_DATA_DIRS, types `setup`, completes an option of detach, and
/// types `tell`, which prints where the completion has been loaded from. Returns that.
#[track_caller]
fn completion_source(sandbox: &Sandbox, prefix: &Path, shell: &[&str], setup: &str, tell: &str) -> String {
    let path = format!("PATH={}/bin:/usr/bin:/bin", prefix.display());
    let data = format!("XDG_DATA_DIRS={}/share:/usr/share", prefix.display());
    let mut terminal = Terminal::open_with(sandbox, &[&["env", &path, &data], shell].concat());
    let started = sandbox.path("home/started");
    let _ = fs::remove_file(&started);
    sandbox.write("setup", setup);
    terminal.start("source setup", &started);
    terminal.wait_for("READY> ");
    terminal.press("detach --print\t");
    terminal.wait_for("--print-pid");
    // Empties the line.
    terminal.press("\x15");
    let source = sandbox.work("source");
    terminal.type_until(&format!("{tell} > source"), || {
        let text = fs::read_to_string(&source).unwrap_or_default();
        text.strip_suffix('\n').map(str::to_owned).ok_or_else(|| format!("{text:?}"))
    })
}

#[test]
fn bash_loads_the_installed_completion() {
    requires!(make, bash);
    if !Path::new(BASH_COMPLETION).is_file() {
        return skip("bash-completion is not installed (tests/run installs it)");
    }
    let sandbox = Sandbox::new();
    let prefix = install(&sandbox);
    let setup = format!("echo $$ > ~/started; . {BASH_COMPLETION}; shopt -s extdebug; PS1='READY> '");
    let shell = ["bash", "--norc", "--noprofile"];
    let source = completion_source(&sandbox, &prefix, &shell, &setup, "declare -F _detach");
    let file = prefix.join("share/bash-completion/completions/detach");
    assert!(source.ends_with(&format!(" {}", file.display())), "{source}");
}

#[test]
fn zsh_loads_the_installed_completion() {
    requires!(make, zsh);
    let sandbox = Sandbox::new();
    let prefix = install(&sandbox);
    let directory = prefix.join("share/zsh/site-functions");
    // zsh itself looks in this directory of the default prefix.
    let fpath = Run::of(sandbox.command("zsh").args(["-fc", "print -l $fpath"])).succeeds();
    assert!(fpath.lines().any(|line| line == "/usr/local/share/zsh/site-functions"), "{fpath}");
    let setup = format!(
        "echo $$ > ~/started; fpath=({} $fpath); autoload -Uz compinit; compinit -D -u; bindkey -e; PS1='READY> '",
        directory.display()
    );
    let source = completion_source(&sandbox, &prefix, &["zsh", "-f"], &setup, "whence -v _detach");
    assert_eq!(source, format!("_detach is a shell function from {}/_detach", directory.display()));
}

#[test]
fn fish_loads_the_installed_completion() {
    requires!(make, fish);
    let sandbox = Sandbox::new();
    let prefix = install(&sandbox);
    let setup = "echo $fish_pid > ~/started\nfunction fish_prompt\n    echo -n 'READY> '\nend\n";
    let tell = "functions --details __detach_mode";
    let source = completion_source(&sandbox, &prefix, &["fish"], setup, tell);
    assert_eq!(source, format!("{}/share/fish/vendor_completions.d/detach.fish", prefix.display()));
}

#[test]
fn debian_package_has_the_files_of_an_installation() {
    requires!(make);
    let sandbox = Sandbox::new();
    let root = sandbox.path("root");
    let variables = [
        "PREFIX=/usr",
        "zshcompletiondir=/usr/share/zsh/vendor-completions",
        &variable("DESTDIR", &root),
        &format!("PROGRAM={DETACH}"),
    ];
    make(&sandbox, &[&["install"], &variables[..]].concat()).succeeds_silently();
    let mut installed: Vec<(String, u32)> =
        files_below(&root).into_iter().map(|(path, (mode, _))| (path, mode)).collect();
    installed.push(("usr/share/doc/detach/changelog".to_owned(), 0o644));
    installed.sort();

    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let assets = &metadata["packages"][0]["metadata"]["deb"]["assets"];
    let assets: Vec<[String; 3]> = serde_json::from_value(assets.clone()).unwrap();
    let mut packaged: Vec<(String, u32)> = Vec::new();
    for [source, destination, mode] in assets {
        let name = if destination.ends_with('/') { source.rsplit('/').next().unwrap() } else { "" };
        packaged.push((format!("{destination}{name}"), u32::from_str_radix(&mode, 8).unwrap()));
        assert!(source == "target/*/release/detach" || Path::new(ROOT).join(&source).is_file(), "{source}");
    }
    packaged.sort();
    assert_eq!(packaged, installed);
}

#[test]
fn crate_has_what_builds_installs_and_explains_the_program() {
    let list = cargo(&["package", "--list", "--allow-dirty"]);
    let (sources, others): (Vec<&str>, Vec<&str>) = list.lines().partition(|path| path.starts_with("src/"));
    let expected = names_below(&Path::new(ROOT).join("src"));
    assert_eq!(sources.len(), expected.len(), "{sources:?}");
    let of_cargo = [".cargo_vcs_info.json", "Cargo.toml.orig"];
    let others: Vec<&str> = others.into_iter().filter(|path| !of_cargo.contains(path)).collect();
    let wanted = [
        ".cargo/config.toml",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "Makefile",
        "README.md",
        "benches/session-dark.svg",
        "benches/session-light.svg",
        "benches/start.svg",
        "completions/_detach",
        "completions/detach.bash",
        "completions/detach.fish",
        "man/detach.1",
    ];
    assert_eq!(others, wanted);
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let pictures: Vec<&str> = readme.split(['(', ')', '"']).filter(|word| word.contains(".svg")).collect();
    assert!(pictures.len() >= 3 && pictures.iter().all(|picture| others.contains(picture)), "{pictures:?}");
}
