//! Hints: what the user may have meant, or may want to do instead. None where it would be wrong.

use crate::support::{DETACH, Run, Sandbox, eventually};

#[track_caller]
fn assert_hint(sandbox: &Sandbox, word: &str, hint: &str) {
    let hint = if hint.is_empty() { String::new() } else { format!("\ndetach: hint: {hint}") };
    let stderr = format!("detach: cannot run '{word}': not found in PATH{hint}");
    // Nothing is in PATH.
    Run::of(sandbox.command(DETACH).env("PATH", "/nowhere").args(["--", word])).fails(127, &stderr);
}

#[test]
fn word_of_a_mode_without_its_dashes_is_answered_with_the_mode() {
    let sandbox = Sandbox::new();
    for (word, mode) in [
        ("list", "--list"),
        ("log", "--log"),
        ("stop", "--stop"),
        ("status", "--list"),
        ("jobs", "--list"),
        ("kill", "--stop"),
        ("tail", "--log -f"),
        ("check", "--check"),
    ] {
        assert_hint(&sandbox, word, &format!("did you mean 'detach {mode}'?"));
    }
}

#[test]
fn program_that_is_called_like_a_mode_is_run() {
    let sandbox = Sandbox::new();
    sandbox.script("list", "#!/bin/sh\nexit 7\n");
    Run::of(sandbox.command(DETACH).env("PATH", ":/usr/bin:/bin").args(["-w", "-o", "out", "list"])).exits(7);
}

#[test]
fn alias_is_hinted_at_only_where_there_could_be_one() {
    let sandbox = Sandbox::new();
    let alias = "if it is an alias, first type: alias detach='detach '";
    for (word, hint) in [("ll", alias), ("my-alias", alias), ("5", ""), ("-x", ""), ("--long", ""), ("a\u{7}b", "")] {
        if word.contains('\u{7}') {
            assert_hint_of_escaped(&sandbox);
        } else {
            assert_hint(&sandbox, word, hint);
        }
    }
    for path in ["./nothing", "/no/ll", "ll/"] {
        let stderr = format!("detach: cannot run '{path}': no such file or directory");
        sandbox.detach([path]).fails(127, &stderr);
    }
}

fn assert_hint_of_escaped(sandbox: &Sandbox) {
    sandbox.detach(["a\u{7}b"]).fails(127, "detach: cannot run 'a\\x07b': not found in PATH");
}

#[test]
fn alias_is_not_hinted_at_in_fish() {
    requires!(fish);
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("fish");
    let run = Run::of(command.args(["--no-config", "-c", "detach no-such-command; true"]));
    run.warns("detach: cannot run 'no-such-command': not found in PATH");
}

#[test]
fn words_of_the_shell_have_hints() {
    let sandbox = Sandbox::new();
    assert_hint(&sandbox, "cd", "cd only affects the shell that it runs in; use -C DIR");
    assert_hint(&sandbox, "export", "a shell can run it: detach sh -c 'export …'");
    assert_hint(&sandbox, "A=1", "to set a variable for the command: detach env NAME=VALUE COMMAND");
}

#[test]
fn script_without_permission_names_its_interpreter() {
    let sandbox = Sandbox::new();
    for (name, text, hint) in [
        ("train.py", "", "make it executable: chmod +x ./train.py, or run: detach python3 ./train.py"),
        ("script", "#!/bin/bash -e\n", "make it executable: chmod +x ./script, or run: detach bash ./script"),
        ("a.rb", "#!/usr/bin/env jruby\n", "make it executable: chmod +x ./a.rb, or run: detach ruby ./a.rb"),
        ("two words.sh", "", "make it executable: chmod +x './two words.sh', or run: detach sh './two words.sh'"),
        ("text.txt", "", ""),
    ] {
        sandbox.write(name, text);
        let hint = if hint.is_empty() { String::new() } else { format!("\ndetach: hint: {hint}") };
        let stderr = format!("detach: cannot run './{name}': permission denied{hint}");
        sandbox.detach([format!("./{name}")]).fails(126, &stderr);
    }
}

#[test]
fn sudo_that_fails_at_once_should_come_first() {
    let sandbox = Sandbox::new();
    sandbox.script("sudo", "#!/bin/sh\necho 'sudo: a terminal is required' >&2; exit 1\n");
    let run = sandbox.detach(["-w", "./sudo", "make"]).exits(1);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines[0].starts_with("detach: 'sudo' failed with status 1 after "), "{run:?}");
    assert_eq!(lines[1], "  | sudo: a terminal is required");
    assert_eq!(lines[3], "detach: hint: sudo cannot ask for a password without a terminal; use 'sudo detach COMMAND'");
    assert_eq!(lines.len(), 4);
    // One that works needs no hint.
    sandbox.script("sudo", "#!/bin/sh\n");
    sandbox.detach(["-w", "./sudo", "make"]).succeeds_silently();
}

#[test]
fn empty_output_may_still_be_buffered() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let note = "detach: nothing written yet; the program may buffer its output";
    assert_eq!(sandbox.detach(["-v", "--log"]).warns(note), "");
    // Nothing more is to be expected from one that has ended.
    job.kill();
    assert_eq!(sandbox.detach(["-v", "--log"]).warns("detach: nothing was written"), "");
    sandbox.job(["sh", "-c", "echo words; exec sleep 60"]);
    eventually(|| sandbox.detach(["-v", "--log"]).succeeds() == "words\n");
}

#[test]
fn misspelt_mode_is_refused_without_a_tip_that_starts_or_removes_anything() {
    let sandbox = Sandbox::new();
    for word in ["--lst", "--stpo", "--run", "--prun"] {
        let run = sandbox.detach([word]).exits(125);
        assert!(!run.stderr.contains("--prune'") && !run.stderr.contains("--stop'"), "{run:?}");
        assert!(!run.stderr.contains("'-- "), "{run:?}");
    }
}
