//! Jobs that run already, in bash, zsh and fish: the function of `--init` lets go of them, the terminal hangs up, and
//! they go on as if nothing had happened. A control in the same shell dies.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{
    BASH, DETACH, FISH, LoadedShell, Process, Run, Shell, ZSH, await_result, eventually, process_named_in,
};

/// Writes its PID to the file that is its argument.
const BEGIN: &str = r#"#!/usr/bin/perl
alarm 300;
$| = 1;
open my $ready, '>', "$ARGV[0].new" or die;
print $ready "$$\n";
close $ready;
rename "$ARGV[0].new", $ARGV[0] or die;
"#;

/// Waits for a line of the terminal, and says how the read has ended. No shell: a dash that starts a program with vfork
/// cannot be stopped with Ctrl-Z before the program runs.
const READ: &str = r#"
my $count = sysread STDIN, my $line, 1;
print defined $count ? "$count bytes read\n" : "read: $!\n";
"#;

/// Writes a line every few milliseconds, as ping does. A failed write ends it.
const WRITE: &str = r#"
while (1) {
    print "tick\n" or exit 1;
    select undef, undef, undef, 0.01;
}
"#;

/// Numbers, not all at once.
const COUNT: &str = r#"
for (1 .. 200) {
    print "$_\n";
    select undef, undef, undef, 0.01;
}
"#;

/// Writes a line whenever each of its threads has done something since the last.
const PYTHON: &str = r#"#!/usr/bin/env python3
import os, sys, threading, time
signal_free = threading.Event()
counts = [0] * 4
def work(number):
    while not signal_free.wait(0.002):
        counts[number] += 1
threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
for thread in threads:
    thread.start()
with open(sys.argv[1] + ".new", "w") as ready:
    print(os.getpid(), file=ready)
os.rename(sys.argv[1] + ".new", sys.argv[1])
end = time.time() + 300
while time.time() < end:
    before = list(counts)
    while any(now == then for now, then in zip(counts, before)):
        time.sleep(0.002)
    print("tick", flush=True)
"#;

const NODE: &str = r"#!/usr/bin/env node
const fs = require('fs');
process.stdout.on('error', () => process.exit(1));
process.stdout.write('tick\n', () => {
    fs.writeFileSync(process.argv[2] + '.new', process.pid + '\n');
    fs.renameSync(process.argv[2] + '.new', process.argv[2]);
});
setInterval(() => console.log('tick'), 10);
setTimeout(() => process.exit(), 300000);
";

/// The same as the Python program, to be linked statically and without symbols. One thread makes no system call.
const STATIC: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile unsigned long counts[3];

static void *sleeper(void *count) {
    for (;;) { usleep(1000); ++*(volatile unsigned long *)count; }
}

static void *runner(void *count) {
    for (;;) ++*(volatile unsigned long *)count;
}

int main(int argc, char **argv) {
    char new[4096];
    pthread_t thread;
    alarm(300);
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, i ? sleeper : runner, (void *)&counts[i]);
    snprintf(new, sizeof new, "%s.new", argv[1]);
    FILE *ready = fopen(new, "w");
    fprintf(ready, "%d\n", getpid());
    fclose(ready);
    rename(new, argv[1]);
    for (;;) {
        unsigned long before[3] = { counts[0], counts[1], counts[2] };
        for (int i = 0; i < 3; i++)
            while (counts[i] == before[i]) usleep(1000);
        if (puts("tick") < 0 || fflush(stdout)) return 1;
    }
}
"#;

/// Forty files, four at a time; from the eleventh on when there is a file called go.
const MAKEFILE: &str = "\
FILES := $(foreach tens,0 1 2 3,$(foreach ones,0 1 2 3 4 5 6 7 8 9,made/$(tens)$(ones)))
all: $(FILES)
made/%:
\t@echo make $@; [ $* -lt 10 ] || until [ -e go ]; do sleep 0.02; done; echo > $@
";

/// A shell with the function, and the programs.
fn open(shell: &Shell) -> LoadedShell {
    let scene = LoadedShell::open(shell);
    for (name, text) in [("threads.py", PYTHON), ("timer.js", NODE)] {
        scene.sandbox.script(name, text);
    }
    for (name, parts) in [("writer", &[WRITE][..]), ("reader", &[READ, WRITE]), ("numbers", &[COUNT])] {
        scene.sandbox.script(name, &(BEGIN.to_owned() + &parts.concat()));
    }
    scene.sandbox.write("Makefile", MAKEFILE);
    fs::create_dir(scene.sandbox.work("made")).unwrap();
    scene
}

/// It runs, has no terminal and no descriptor on one, and ignores SIGHUP.
#[track_caller]
fn assert_is_let_go(process: &Process) {
    eventually(|| !process.is_stopped());
    assert_eq!(process.terminal(), 0, "{process:?}");
    assert!(process.signals("SigIgn").contains(&1), "{process:?}");
    let is_terminal = |path: &&PathBuf| path.starts_with("/dev/pts") || path.starts_with("/dev/tty");
    assert_eq!(process.descriptors().values().find(is_terminal), None, "{process:?}");
}

/// What it writes grows by several lines.
#[track_caller]
fn assert_keeps_writing(process: &Process) {
    let output = process.descriptors()[&1].clone();
    assert_grows(&output, || process.is_dead());
    assert!(process.is_alive(), "{} has ended", output.display());
}

#[track_caller]
fn assert_grows(file: &Path, is_over: impl Fn() -> bool) {
    let length = || fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
    let before = length();
    eventually(|| is_over() || length() > before + 3 * "tick\n".len() as u64);
}

fn has_node() -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join("node").is_file())
}

/// Jobs that run in the background and jobs that are stopped, named in every way.
fn assert_jobs_survive(shell: &Shell) {
    let mut scene = open(shell);
    let source = scene.sandbox.path("static.c");
    fs::write(&source, STATIC).unwrap();
    let mut compiler = scene.sandbox.command("cc");
    compiler.args(["-static", "-pthread", "-s", "-o", "threads"]).arg(&source);
    Run::of(&mut compiler).succeeds_silently();

    let control = scene.start("./writer", "&");
    let mut jobs = vec![scene.start_stopped("./writer", "")];
    scene.succeeds("detach %%");
    assert_is_let_go(&jobs[0]);
    jobs.push(scene.start("./threads.py", "&"));
    scene.succeeds("detach -q %2");
    let named: &[(&str, &str)] =
        if shell.name == "fish" { &[("./threads", "detach %./threads")] } else { &[("./threads", "detach %./thr")] };
    for (program, detach) in named {
        jobs.push(scene.start(program, "&"));
        scene.succeeds(detach);
    }
    if has_node() {
        jobs.push(scene.start_stopped("./timer.js", ""));
        scene.succeeds("detach -N node '%?timer'");
    }
    let reader = scene.start_stopped("./reader", "");
    scene.succeeds("detach -o reader.log %%");
    for job in jobs.iter().chain([&reader]) {
        assert_is_let_go(job);
    }
    scene.hang_up();
    eventually(|| control.is_dead());
    for job in jobs.iter().chain([&reader]) {
        assert_keeps_writing(job);
    }
    // The end of file, not an error.
    assert!(scene.sandbox.read("reader.log").starts_with("0 bytes read\ntick\n"));
}

#[test]
fn jobs_of_bash_survive() {
    requires!(bash, perl, python3, cc);
    assert_jobs_survive(&BASH);
}

#[test]
fn jobs_of_zsh_survive() {
    requires!(zsh, perl, python3, cc);
    assert_jobs_survive(&ZSH);
}

#[test]
fn jobs_of_fish_survive() {
    requires!(fish, perl, python3, cc);
    assert_jobs_survive(&FISH);
}

/// The shell continues the process group of the job, and knows of no other: timeout has its own.
fn assert_all_groups_continue(shell: &Shell) {
    let mut scene = open(shell);
    scene.sandbox.script("outer", "#!/bin/sh\ntimeout 300 ./writer \"$1\" &\nwait\n");
    let writer = scene.start("./outer", "&");
    scene.succeeds("detach %1");
    assert_is_let_go(&writer);
    assert_keeps_writing(&writer);
}

/// The same at the end of a pipeline: then it is a child of the shell.
fn assert_all_of_a_pipeline_is_let_go_of(shell: &Shell) {
    let mut scene = open(shell);
    let other = scene.sandbox.path("last");
    scene.sandbox.script("last", &format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}\nexec cat\n", other.display()));
    let writer = scene.start("./writer", "| timeout 300 ./last &");
    let last = process_named_in(&other);
    assert_ne!(last.group(), writer.group());
    scene.succeeds("detach %1");
    for process in [&writer, &last] {
        assert_is_let_go(process);
    }
    assert_keeps_writing(&last);
    scene.hang_up();
    assert_keeps_writing(&last);
}

#[test]
fn all_of_a_pipeline_is_let_go_of() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        assert_all_of_a_pipeline_is_let_go_of(shell);
    }
}

#[test]
fn all_process_groups_of_a_job_continue() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        assert_all_groups_continue(shell);
    }
}

#[test]
fn jobs_run_on_when_one_of_them_cannot_be_let_go_of() {
    requires!(bash, zsh, fish, perl, prlimit);
    for shell in [&BASH, &ZSH, &FISH] {
        let mut scene = open(shell);
        let jobs = [scene.start("./writer", "&"), scene.start("./writer", "&")];
        // No descriptor is free in it.
        let limit = ["--nofile=3", "--pid"];
        Run::of(scene.sandbox.command("prlimit").args(limit).arg(jobs[1].pid.to_string())).succeeds_silently();
        assert_eq!(scene.run("detach %1 %2"), 125, "{}", shell.name);
        assert_is_let_go(&jobs[0]);
        eventually(|| !jobs[1].is_stopped());
        assert_ne!(jobs[1].terminal(), 0);
    }
}

#[test]
fn job_continues_if_detach_is_killed_before_the_shell_knows_that_it_has_succeeded() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        let mut scene = open(shell);
        fs::create_dir(scene.sandbox.work("bin")).unwrap();
        scene.sandbox.script("bin/detach", &format!("#!/bin/sh\n{DETACH} \"$@\"\nkill -KILL $$\n"));
        let path = if shell.name == "fish" { "set -x PATH $PWD/bin $PATH" } else { "PATH=$PWD/bin:$PATH" };
        scene.succeeds(path);
        let job = scene.start("./writer", "&");
        assert_eq!(scene.run("detach %1"), 137, "{}", shell.name);
        assert_is_let_go(&job);
        assert_keeps_writing(&job);
    }
}

/// The number of files in a directory.
fn count_files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Jobs of several processes: a pipeline, and make with its children.
fn assert_work_is_completed(shell: &Shell) {
    let mut scene = open(shell);
    let expected = scene.sandbox.sh("seq 200 | md5sum").succeeds();
    let control = scene.start("./writer", "&");
    let numbers = scene.start_stopped("./numbers", "| cat | md5sum");
    scene.succeeds("detach -o sum %%");
    assert_is_let_go(&numbers);
    scene.terminal.wait_for_prompt();
    scene.terminal.type_line("make -j4 &");
    let directory = scene.sandbox.work("made");
    scene.eventually(|_| count_files(&directory) == 10);
    scene.succeeds("detach -o make.log %make");
    scene.hang_up();
    eventually(|| control.is_dead());
    scene.sandbox.write("go", "");
    await_result(|| {
        let sum = fs::read_to_string(scene.sandbox.work("sum")).unwrap_or_default();
        let made = count_files(&directory);
        if (sum.as_str(), made) == (&expected, 40) { Ok(()) } else { Err(format!("{sum:?}, {made} files")) }
    });
    let log = scene.sandbox.read("make.log");
    assert!(log.lines().count() > 20 && log.lines().all(|line| line.starts_with("make made/")), "{log}");
}

#[test]
fn pipeline_and_make_of_bash_complete_their_work() {
    requires!(bash, perl, make);
    assert_work_is_completed(&BASH);
}

#[test]
fn pipeline_and_make_of_zsh_complete_their_work() {
    requires!(zsh, perl, make);
    assert_work_is_completed(&ZSH);
}

#[test]
fn pipeline_and_make_of_fish_complete_their_work() {
    requires!(fish, perl, make);
    assert_work_is_completed(&FISH);
}

#[test]
fn loop_of_the_shell_itself_survives() {
    requires!(bash, zsh, perl);
    for shell in [&BASH, &ZSH] {
        let mut scene = open(shell);
        let control = scene.start("./writer", "&");
        let file = scene.sandbox.work("loop");
        scene.terminal.wait_for_prompt();
        let command = "while true; do echo tick; echo tick >> loop; sleep 0.2; done";
        if shell.name == "bash" {
            scene.terminal.type_line(&format!("{command} &"));
            scene.eventually(|_| file.exists());
        } else {
            // zsh goes on with the loop in a process of its own when the command in the foreground is stopped.
            scene.terminal.type_line(command);
            let shell = scene.terminal.shell.clone();
            let mut quiet = 0;
            scene.eventually(|terminal| {
                let is_running = terminal.foreground() != shell.group();
                if is_running && file.exists() {
                    terminal.press("\x1a");
                }
                quiet = if is_running || !shell.is_asleep() { 0 } else { quiet + 1 };
                file.exists() && quiet > 50
            });
            // Keys that came too late.
            scene.terminal.press("\x15");
        }
        scene.succeeds("detach %%");
        scene.hang_up();
        eventually(|| control.is_dead());
        assert_grows(&file, || false);
    }
}

#[test]
fn job_in_the_foreground_of_another_terminal_survives() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        let mut scene = open(shell);
        let control = scene.start("./writer", "&");
        let job = scene.start("./writer", "");
        scene.eventually(|terminal| terminal.foreground() == job.group());
        scene.sandbox.detach(["--pid", &job.pid.to_string()]).succeeds();
        assert_is_let_go(&job);
        // The shell has its prompt back.
        scene.succeeds("true");
        scene.hang_up();
        eventually(|| control.is_dead());
        assert_keeps_writing(&job);
    }
}

#[test]
fn several_jobs_are_let_go_of_at_once() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        let mut scene = open(shell);
        let first = scene.start("./writer", "&");
        let second = scene.start_stopped("./writer", "");
        let third = scene.start("./writer", "&");
        scene.succeeds("detach %1 -q -o all.log %2");
        for job in [&first, &second] {
            assert_is_let_go(job);
            assert_keeps_writing(job);
        }
        assert_ne!(third.terminal(), 0, "{}: not asked for", shell.name);
        scene.hang_up();
        eventually(|| third.is_dead());
        assert_keeps_writing(&first);
        assert_keeps_writing(&second);
    }
}
