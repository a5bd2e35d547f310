//! What command lines mean, what is reported about wrong ones, and how the help looks.
//!
//! All goes through `parse`, as in `main`. Values are tested beside their parsers in `values.rs`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use super::*;
use crate::start::Target;
use crate::sys::signals::Disposition;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse_line(line: &str) -> (Action, Verbosity) {
    parse(words(line)).unwrap()
}

/// What a start means, which is the same whether clap knows of the modes or not.
fn request(words: Vec<OsString>) -> Request {
    let (Action::Start(with_modes), volume) = interpret(read(&words).unwrap()) else { panic!("{words:?}") };
    let line = read_start(&words).unwrap();
    let (Action::Start(without), volume_without) = interpret(Typed { line, mode: None }) else { panic!("{words:?}") };
    assert_eq!((&with_modes, volume), (&without, volume_without), "{words:?}");
    match parse(words).unwrap() {
        (Action::Start(request), _) => {
            assert_eq!(request, without);
            *request
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn mode_is_never_part_of_a_start() {
    for line in ["--list", "-q --list", "--json --list", "-F --list X", "-o out --log X", "-- --lst", "-h", "-V", ""] {
        let starts = line.starts_with("-- ");
        assert_eq!(read_start(&words(line)).is_ok(), starts, "{line}");
    }
}

fn printed(line: &str) -> String {
    match parse_line(line) {
        (Action::Print(message), _) => message.to_string(),
        (other, _) => panic!("{line}: {other:?}"),
    }
}

#[test]
fn grammar_is_valid() {
    command().debug_assert();
    grammar::start_line().debug_assert();
    grammar::with_suggestions(command()).debug_assert();
}

#[test]
fn command_without_options_means_the_same_with_and_without_clap() {
    for line in ["X Y", "X -q --list -- --help", "list --all"] {
        let (Action::Start(direct), direct_verbosity) = parse_line(line) else { panic!("{line}") };
        let (Action::Start(parsed), parsed_verbosity) = parse_line(&format!("-- {line}")) else { panic!("{line}") };
        assert_eq!(direct, parsed);
        assert_eq!(*direct, Request::new(words(line)));
        assert_eq!((direct_verbosity, parsed_verbosity), (Verbosity::Normal, Verbosity::Normal));
    }
    let odd = OsStr::from_bytes(b"\xff").to_owned();
    for command in [vec![OsString::new()], vec![odd.clone(), odd]] {
        let dashed = std::iter::once(OsString::from("--")).chain(command.clone()).collect();
        assert_eq!(request(command), request(dashed));
    }
}

#[test]
fn each_option_of_a_start_sets_its_field() {
    let default = || Request::new(words("X -q"));
    let file = |path: &str| Some(Target::File(path.into()));
    for (options, expected) in [
        ("-F", Request { sequence: Sequence::Daemon, ..default() }),
        ("-o out", Request { output: file("out"), ..default() }),
        ("--output=-", Request { output: Some(Target::Keep), ..default() }),
        ("-e err", Request { error: file("err"), ..default() }),
        ("-iin", Request { input: file("in"), ..default() }),
        ("-C dir", Request { directory: Some("dir".into()), ..default() }),
        ("-m 022 -m 027", Request { umask: Some(FileMode::from_bits_truncate(0o027)), ..default() }),
        ("--keep-fd 3,4 --keep-fd=5", Request { keep: vec![3, 4, 5], ..default() }),
        ("--sigchld ignore", Request { sigchld: Some(Disposition::Ignored), ..default() }),
        ("--pidfile p", Request { pidfile: Some(PathBuf::from("p")), ..default() }),
        ("-N name", Request { name: Some("name".into()), ..default() }),
        ("-t", Request { tracking: Tracking::Record, ..default() }),
        ("--notify -t", Request { tracking: Tracking::Notify, ..default() }),
        ("--settle 0", Request { watch: Watch::For(Duration::ZERO), ..default() }),
        ("-w --settle 9s", Request { watch: Watch::ToTheEnd, ..default() }),
        ("--scope", Request { scope: Scope::Own, ..default() }),
        ("-P", Request { print_pid: true, ..default() }),
        ("--json", Request { json: true, ..default() }),
        ("-qPo out", Request { print_pid: true, output: file("out"), ..default() }),
    ] {
        assert_eq!(request(words(&format!("{options} X -q"))), expected, "{options}");
    }
}

#[test]
fn word_after_an_option_is_its_value_whatever_it_looks_like() {
    for value in ["-x", "--", "--list", "--help", "-1"] {
        let request = request(words(&format!("-N {value} -C {value} X")));
        assert_eq!((request.name, request.directory), (Some(value.into()), Some(value.into())));
    }
}

#[test]
fn files_names_and_words_need_not_be_utf_8() {
    let odd = OsStr::from_bytes(b"\xff").to_owned();
    let typed = ["-N", "\0", "-o", "\0", "-C", "\0", "--pidfile", "\0", "\0"];
    let request = request(typed.map(|word| if word == "\0" { odd.clone() } else { word.into() }).to_vec());
    assert_eq!(request.name, Some(odd.clone()));
    assert_eq!(request.output, Some(Target::File(odd.clone().into())));
    assert_eq!(request.command, std::slice::from_ref(&odd));
    for mode in ["--log", "--join", "--stop", "--check"] {
        assert!(!matches!(parse(vec![mode.into(), odd.clone()]).unwrap().0, Action::Print(_)), "{mode}");
    }
    let error = parse(vec!["--settle".into(), odd, "X".into()]).unwrap_err().to_string();
    assert!(error.starts_with("cannot use '\u{fffd}' for '--settle <DURATION>': "), "{error}");
    assert!(matches!(parse(vec![OsStr::from_bytes(b"--\xff").into()]).unwrap().0, Action::Print(_)));
}

#[test]
fn modes_take_their_options_in_any_order() {
    for line in ["--log -f make -n 5", "--log make --lines=5 -f", "-q --log -fn5 -- make"] {
        let (Action::Log(options), _) = parse_line(line) else { panic!("{line}") };
        assert_eq!(options, log::Options { job: Some("make".into()), follow: true, lines: Some(5) });
    }
    for line in ["--json --list --all", "--list --all --json"] {
        let (Action::List(options), _) = parse_line(line) else { panic!("{line}") };
        assert_eq!(options, list::Options { all: true, json: true });
    }
    assert!(matches!(parse_line("--json --check a").0, Action::Check { json: true, .. }));
    assert!(matches!(parse_line("--join a b").0, Action::Join(jobs) if jobs == ["a", "b"]));
}

#[test]
fn pid_takes_processes_and_where_their_output_goes() {
    let request = |line: &str| match parse_line(line) {
        (Action::LetGo(request), _) => request,
        (other, _) => panic!("{line}: {other:?}"),
    };
    let default =
        rescue::Request { wanted: vec![Pid::from_raw(7)], output: None, name: None, after: rescue::After::Continue };
    assert_eq!(request("--pid 7"), default);
    assert_eq!(request("-q --pid 7 8").wanted, [7, 8].map(Pid::from_raw));
    let all = rescue::Request {
        output: Some("out".into()),
        name: Some("name".into()),
        after: rescue::After::StayStopped,
        ..default
    };
    assert_eq!(request("--pid -o out --name name --stay-stopped 7"), all);
    assert!(printed("--pid").contains("required arguments were not provided:\n  <PID>..."));
    assert!(printed("--pid=7").contains("  tip: the value must be a separate word: '--pid 7'\n"));
}

#[test]
fn modes_without_words_mean_their_defaults() {
    assert!(matches!(parse_line("--log").0, Action::Log(log::Options { job: None, follow: false, lines: None })));
    assert!(matches!(parse_line("--join").0, Action::Join(jobs) if jobs.is_empty()));
    assert!(matches!(parse_line("--check").0, Action::Check { wanted, json: false } if wanted.is_empty()));
    for (line, seconds) in [("--prune", 604_800), ("--prune 0", 0), ("--prune 1m30s", 90)] {
        let (Action::Prune(options), _) = parse_line(line) else { panic!("{line}") };
        assert_eq!((options.older_than, options.dry_run), (Duration::from_secs(seconds), false));
    }
}

#[test]
fn init_needs_the_name_of_a_shell() {
    for (name, expected) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
        assert!(matches!(parse_line(&format!("--init {name}")).0, Action::Init(shell) if shell == expected));
    }
    let error = parse(words("--init sh")).unwrap_err();
    assert_eq!(error.to_string(), "cannot use 'sh' for 'SHELL': not 'bash', 'zsh' or 'fish'");
    assert!(printed("--init").contains("required arguments were not provided:\n  <SHELL>"));
}

#[test]
fn stop_needs_jobs_or_all() {
    let end = || stop::How::End(Duration::from_secs(5));
    for (line, which, how) in [
        ("--stop a b", stop::Which::Jobs(words("a b")), end()),
        ("--stop --all", stop::Which::All(Vec::new()), end()),
        ("--stop a --all", stop::Which::All(words("a")), end()),
        ("--stop a --grace 0", stop::Which::Jobs(words("a")), stop::How::End(Duration::ZERO)),
        ("--stop --signal hup a", stop::Which::Jobs(words("a")), stop::How::Signal(1)),
    ] {
        let (Action::Stop(options), _) = parse_line(line) else { panic!("{line}") };
        assert_eq!(options, stop::Options { which, how });
    }
    assert!(printed("--stop").contains("required arguments were not provided:\n  <JOB>..."));
    let conflict = "the argument '--grace <DURATION>' cannot be used with '--signal <SIG>'";
    assert!(printed("--stop a --grace 1s --signal 9").contains(conflict));
}

#[test]
fn last_of_quiet_and_verbose_wins() {
    for (line, expected) in [
        ("-q X", Verbosity::Quiet),
        ("-v X", Verbosity::Verbose),
        ("-vv X", Verbosity::Steps),
        ("-v -v -v X", Verbosity::Steps),
        ("-qv X", Verbosity::Verbose),
        ("-vvq X", Verbosity::Quiet),
        ("-q --list", Verbosity::Quiet),
        ("-q --list -vv", Verbosity::Steps),
        ("-v --stop a -q", Verbosity::Quiet),
    ] {
        assert_eq!(parse_line(line).1, expected, "{line}");
    }
}

#[test]
fn option_of_a_start_before_a_mode_is_a_conflict() {
    for (line, conflict) in [
        ("-F --list", "'--full' cannot be used with '--list'"),
        ("-q -N x -P --stop a", "'--name <NAME>' cannot be used with '--stop'"),
        ("--json --log", "'--json' cannot be used with '--log'"),
    ] {
        let text = printed(line);
        assert!(text.starts_with(&format!("error: the argument {conflict}\n")), "{text}");
    }
}

#[test]
fn value_attached_to_a_mode_gets_a_tip() {
    for (line, tip) in [
        ("--prune=30d", "'--prune 30d'"),
        ("-q --log=make", "'--log make'"),
        ("--join=a b", "'--join a'"),
        ("--stop=a", "'--stop a'"),
        ("--check=1", "'--check 1'"),
    ] {
        let text = printed(line);
        assert!(text.contains(&format!("  tip: the value must be a separate word: {tip}\n")), "{text}");
    }
    for line in ["--list=all", "--prune="] {
        let text = printed(line);
        assert!(text.starts_with(&format!("error: unexpected argument '{line}' found\n")), "{text}");
        assert!(!text.contains("tip:"), "{text}");
    }
}

#[test]
fn misspelt_options_and_modes_get_a_suggestion() {
    for (line, meant) in [
        ("--lst", "--list"),
        ("--lists", "--list"),
        ("--jion a", "--join"),
        ("--outptu x sleep", "--output"),
        ("--prune --dry", "--dry-run"),
    ] {
        let text = printed(line);
        assert!(text.contains(&format!("\n  tip: a similar argument exists: '{meant}'\n")), "{text}");
    }
}

#[test]
fn suggestion_never_ends_or_removes_anything() {
    for line in [
        "--run",
        "--run --prune",
        "--prun",
        "--purge",
        "--stpo",
        "--top",
        "-Z --stop",
        "--clean",
        "--pdi 7",
        "--pids 7",
    ] {
        let text = printed(line);
        let tip = text.lines().find(|line| line.contains("tip:")).unwrap_or_default();
        assert!(!["--prune", "--stop", "--all", "--pid'"].iter().any(|option| tip.contains(option)), "{line}: {tip}");
        assert!(!tip.contains("'-- "), "{line}: {tip}");
    }
}

#[test]
fn invalid_value_has_a_sentence() {
    let duration = "not a duration like 500ms, 2s, 1m30s or 7d";
    for (line, sentence) in [
        ("-m 9 X", "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777"),
        ("-m 9 -m 0 X", "cannot use '9' for '--umask <MODE>': not an octal number from 0 to 777"),
        ("-N a/b X", "cannot use 'a/b' for '--name <NAME>': it must not be blank or contain a slash"),
        ("--keep-fd 3,x X", "cannot use 'x' for '--keep-fd <N>': not a descriptor number"),
        ("--sigchld no X", "cannot use 'no' for '--sigchld <HOW>': neither 'default' nor 'ignore'"),
        ("--settle -1 X", &format!("cannot use '-1' for '--settle <DURATION>': {duration}")),
        ("--prune soon", &format!("cannot use 'soon' for 'DURATION': {duration}")),
        ("--stop a --signal NO", "cannot use 'NO' for '--signal <SIG>': no such signal"),
        ("--pid make", "cannot use 'make' for 'PID': not a PID"),
        ("--pid 0", "cannot use '0' for 'PID': not a PID"),
        ("--pid -o - 7", "cannot use '-' for '--output <FILE>': the terminal cannot be kept"),
        ("--log -n -5", "cannot use '-5' for '--lines <N>': not a number of lines"),
    ] {
        assert_eq!(parse(words(line)).unwrap_err().to_string(), sentence);
    }
    let error = parse(vec!["-N".into(), "".into(), "X".into()]).unwrap_err();
    assert_eq!(error.to_string(), "cannot use '' for '--name <NAME>': it must not be blank or contain a slash");
}

#[test]
fn wrong_usage_is_an_error_and_help_is_not() {
    for line in ["", "--", "-q", "-o", "--list x", "--list --log", "--log a b", "--nothing", "--prune -1", "-f X"] {
        let (Action::Print(message), _) = parse_line(line) else { panic!("{line}") };
        assert!(message.use_stderr(), "{line}");
    }
    for line in ["-h", "--help --list", "--version", "-V", "--list --help", "-q --log -h"] {
        let (Action::Print(message), _) = parse_line(line) else { panic!("{line}") };
        assert!(!message.use_stderr(), "{line}");
    }
    assert_eq!(printed("--version"), format!("detach {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_fits_the_screen() {
    let help = printed("--help");
    assert_eq!(printed("-h"), help);
    assert!(help.lines().count() <= 50, "{help}");
    let mut texts = vec![help];
    for mode in command().get_subcommands() {
        texts.push(printed(&format!("{} --help", mode.get_name())));
    }
    assert_eq!(texts.len(), 9);
    for line in texts.iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
