//! The function that `--init` prints: what it passes on to the program, what it refuses, and that it works whatever the
//! user has set. That the jobs survive is tested in `rescued_jobs`, what `--check` learns in `job_tables`.

use crate::support::{BASH, FISH, LoadedShell, Run, Sandbox, Shell, ZSH, eventually};

/// Writes its PID to the file named by its argument, and becomes a sleep.
const SLEEPER: &str = "#!/bin/sh\necho $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 60\n";

const SHELLS: [&Shell; 3] = [&BASH, &ZSH, &FISH];

/// Runs a script that loads the function first. Its stdin is a pipe with these bytes.
fn run(shell: &Shell, script: &str, input: &str) -> Run {
    let sandbox = Sandbox::new();
    sandbox.write("input", input);
    let mut command = sandbox.command("sh");
    command.args(["-c", "cat input | \"$@\"", "sh", shell.name, "-c", &format!("{}\n{script}", shell.load)]);
    Run::of(&mut command)
}

#[test]
fn each_shell_has_its_function() {
    let sandbox = Sandbox::new();
    for shell in SHELLS {
        let function = sandbox.detach(["--init", shell.name]).succeeds();
        assert!(function.starts_with(&format!("# The function detach for {}.", shell.name)), "{function}");
    }
    sandbox.detach(["--init", "tcsh"]).fails(
        125,
        "detach: cannot use 'tcsh' for 'SHELL': not 'bash', 'zsh' or 'fish'\ndetach: hint: see 'detach --init --help'",
    );
}

#[test]
fn start_is_passed_on_as_it_was_typed() {
    requires!(bash, zsh, fish);
    for shell in SHELLS {
        let words = "detach -w -o - printf '<%s>' 'a b' '' '*' '-o' '%1' --check '$x'";
        let run = run(shell, words, "");
        assert_eq!(run.succeeds(), "<a b><><*><-o><%1><--check><$x>", "{}", shell.name);
        for (command, status) in [
            ("detach -w sh -c 'exit 7'", 7),
            ("detach no-such-command 2> /dev/null", 127),
            ("detach / 2> /dev/null", 126),
            ("detach --nothing 2> /dev/null", 125),
            ("detach -- %1 2> /dev/null", 127),
        ] {
            assert_eq!(self::run(shell, command, "").status, status, "{}: {command}", shell.name);
        }
        // stdin, a pipe on each side, and the environment.
        let command = "detach -w -i - -o - cat | tr a-z A-Z";
        assert_eq!(self::run(shell, command, "text\n").succeeds(), "TEXT\n", "{}", shell.name);
        let variables = "detach -w -o - env | grep -c -e DETACH_SHELL -e __detach";
        assert_eq!(self::run(shell, variables, "").exits(1).stdout, "0\n", "{}", shell.name);
    }
}

#[test]
fn wrong_job_is_one_sentence() {
    requires!(bash, zsh, fish);
    for shell in SHELLS {
        let reason =
            if shell.name == "bash" { "not a job of this shell, or more than one" } else { "not a job of this shell" };
        for word in ["%1", "%%", "%-", "%no such job", "%?no"] {
            run(shell, &format!("detach '{word}'"), "")
                .fails(125, &format!("detach: cannot let go of '{word}': {reason}"));
        }
        run(shell, "detach -qo file --name=x '%1' 2> /dev/null", "").exits_silently(125);
        run(shell, "detach -q --check '%1'", "").fails(125, &format!("detach: cannot check '%1': {reason}"));
    }
}

#[test]
fn bash_says_that_it_does_not_know_its_jobs_in_a_pipeline() {
    requires!(bash);
    let reason = "in a pipeline or subshell, bash does not know its jobs";
    let run = run(SHELLS[0], "set -m; sleep 5 & detach --check %1 | cat; kill %1", "").exits(0);
    assert_eq!(run.stderr, format!("detach: cannot check '%1': {reason}\n"));
}

#[test]
fn word_that_is_no_job_is_refused_before_anything_is_done() {
    requires!(bash, zsh, fish);
    for shell in SHELLS {
        let mut loaded = LoadedShell::open(shell);
        loaded.sandbox.script("sleeper", SLEEPER);
        let job = loaded.start("./sleeper", "&");
        assert_eq!(loaded.run("detach %1 make"), 125);
        let sentence = "detach: cannot let go of 'make': not a job specification such as %1";
        assert!(loaded.terminal.screen().contains(sentence), "{}", loaded.terminal.screen());
        assert_ne!(job.terminal(), 0);
        assert!(!job.is_stopped());
    }
}

/// Starts a job, lets go of it, and looks at the job table and at the names that have been defined.
#[track_caller]
fn assert_works_with(shell: &Shell, settings: &[&str]) {
    let mut loaded = LoadedShell::open_after(shell, settings);
    // A second time changes nothing.
    loaded.succeeds(shell.load);
    loaded.sandbox.script("sleeper", SLEEPER);
    let job = loaded.start("./sleeper", "&");
    job.wait_for_exec("sleep");
    loaded.succeeds("detach -q -o out.log %%");
    assert_eq!((job.terminal(), job.signals("SigIgn").contains(&1)), (0, true), "{settings:?}");
    eventually(|| job.is_asleep());
    let builtin = if shell.name == "fish" { "builtin" } else { "\\builtin" };
    loaded.run(&format!("{builtin} jobs > jobs.txt"));
    assert_eq!(loaded.sandbox.read("jobs.txt"), "", "{settings:?}");
    loaded.succeeds("detach -w true");
}

#[test]
fn shell_keeps_no_descriptor() {
    requires!(bash, zsh);
    // fish opens pipes of its own at any time.
    for shell in [&BASH, &ZSH] {
        let mut loaded = LoadedShell::open(shell);
        loaded.sandbox.script("sleeper", SLEEPER);
        loaded.succeeds("true");
        let before = loaded.terminal.shell.descriptors();
        loaded.start("./sleeper", "&");
        loaded.succeeds("detach %%");
        loaded.run("detach %9");
        loaded.terminal.wait_for_prompt();
        assert_eq!(loaded.terminal.shell.descriptors(), before, "{}", shell.name);
    }
}

#[test]
fn function_works_whatever_is_set_in_bash() {
    requires!(bash);
    for settings in [
        &["set -u -o noclobber; shopt -s nocasematch failglob; IFS=0123456789-"][..],
        &["set -o posix; shopt -s expand_aliases"],
        &[
            "alias command='echo no' kill='echo no' disown='echo no' jobs='echo no' builtin='echo no' detach='detach '",
            "alias exec='echo no' printf='echo no'; kill() { echo no; }; jobs() { echo no; }; command() { echo no; }",
        ],
        &["export word=1 group=2 IFS; set -e; set -o pipefail; shopt -s localvar_inherit 2> /dev/null || true"],
    ] {
        assert_works_with(&BASH, settings);
    }
}

#[test]
fn function_works_whatever_is_set_in_zsh() {
    requires!(zsh);
    for settings in [
        &["setopt ksh_arrays sh_word_split no_unset no_clobber glob_subst rc_expand_param; IFS=0123456789-"][..],
        &[
            "setopt sh_glob ignore_braces ignore_close_braces null_glob posix_builtins posix_identifiers no_bare_glob_qual",
        ],
        &["emulate ksh; setopt monitor interactive_comments 2> /dev/null"],
        &["setopt err_return warn_create_global csh_junkie_loops no_notify no_short_loops"],
        &[
            "alias command='echo no' kill='echo no' disown='echo no' jobs='echo no' builtin='echo no' detach='detach '",
            "kill() { echo no; }; jobs() { echo no; }; disown() { echo no; }; command() { echo no; }",
        ],
    ] {
        assert_works_with(&ZSH, settings);
    }
}

#[test]
fn function_works_whatever_is_set_in_fish() {
    requires!(fish);
    for settings in [
        &["set -gx word 1; set -g IFS 0123456789"][..],
        &["function kill; echo no; end; function jobs; echo no; end; function disown; echo no; end"],
    ] {
        assert_works_with(&FISH, settings);
    }
}

#[test]
fn nothing_but_the_functions_is_defined() {
    requires!(bash, zsh, fish);
    let names = [
        (&BASH, "compgen -v -A function", ["detach", "disown"].as_slice()),
        (&ZSH, "print -rl -- ${(ok)functions} ${(ok)parameters}", &["detach"]),
        (&FISH, "begin; functions --names --all; set --names; end", &["detach"]),
    ];
    for (shell, list, expected) in names {
        let ignored = ["_", "BASH_LINENO", "PIPESTATUS", "FUNCNAME", "BASH_ARGC", "BASH_ARGV", "status_generation"];
        let script = format!("{list} > before; {load}\n{list} > after", load = shell.load);
        // The commands before and after are the same, so that what they define themselves is in both lists.
        let sandbox = Sandbox::new();
        let script = format!("{list} > /dev/null; {script}");
        let words: &[&str] = if shell.name == "fish" { &["--no-config", "-c"] } else { &["-c"] };
        Run::of(sandbox.command(shell.name).args(words).arg(script)).succeeds_silently();
        let before = sandbox.read("before");
        let after = sandbox.read("after");
        let is_new = |name: &&str| !before.lines().any(|line| line == *name) && !ignored.contains(name);
        assert_eq!(after.lines().filter(is_new).collect::<Vec<_>>(), expected, "{}", shell.name);
    }
}
