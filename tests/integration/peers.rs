//! What other ways to start a program that is to survive do differently, beside the survival matrix.
//!
//! `cargo test peers_table -- --ignored --nocapture` prints the table of the README.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{Process, Run, Sandbox, Terminal, is_installed, process_named_in};

/// The title, and what is typed in bash. Every command is an absolute path, which daemonize wants.
const WAYS: [(&str, &str); 5] = [
    ("detach", "detach COMMAND"),
    ("nohup … &", "nohup COMMAND &"),
    ("… & disown", "COMMAND & disown"),
    ("setsid -f", "setsid -f COMMAND"),
    ("daemonize", "daemonize COMMAND"),
];

/// Tells its PID when it is started, and stays.
const PROGRAM: &str = "#!/bin/sh\necho $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 60\n";

#[allow(clippy::struct_excessive_bools)] // each is a row of the table
struct Facts {
    /// The exit status for a command that does not exist, is not executable, is a directory, has a bad interpreter.
    statuses: Vec<String>,
    returns_from_substitution: bool,
    keeps_lock: bool,
    passes_ignored_interrupt_on: bool,
    keeps_terminal: bool,
    leads_session: bool,
}

fn measure(line: &str) -> Facts {
    let sandbox = Sandbox::new();
    sandbox.script("program", PROGRAM);
    sandbox.script("bad", "#!/no/such/interpreter\n");
    fs::write(sandbox.path("work/plain"), "text").unwrap();
    fs::create_dir(sandbox.path("work/directory")).unwrap();
    let work = sandbox.path("work").display().to_string();
    let bash = |script: &str| Run::of(sandbox.command("bash").args(["-c", script]));
    let status_of = |name: &str| {
        let started = line.replace("COMMAND", &format!("{work}/{name}"));
        let script = format!("{{ {started}\n}} > /dev/null 2>&1; echo $?");
        // More than once: `disown` may come before or after the end of its job.
        let statuses: BTreeSet<String> = (0..10).map(|_| bash(&script).stdout.trim().to_owned()).collect();
        statuses.into_iter().collect::<Vec<_>>().join(" or ")
    };
    // Starts the program after `before` and returns its process, seen when it sleeps.
    let start = |before: &str, name: &str| {
        let file = sandbox.path(name);
        let started = line.replace("COMMAND", &format!("{work}/program {}", file.display()));
        bash(&format!("{before}\n{{ {started}\n}} > /dev/null 2>&1 < /dev/null"));
        let process = process_named_in(&file);
        process.wait_for_exec("sleep");
        process
    };
    let substitution = line.replace("COMMAND", &format!("{work}/program {}", sandbox.path("substituted").display()));
    let substitution = bash(&format!("timeout 10 bash -c 'out=$({substitution}\n)' > /dev/null 2>&1; echo $?"));
    let mut terminal = Terminal::open_with(&sandbox, &["bash", "--norc", "--noprofile", "-i"]);
    let file = sandbox.path("typed");
    let typed = line.replace("COMMAND", &format!("{work}/program {}", file.display()));
    let typed: Process = terminal.start(&typed, &file);
    Facts {
        statuses: ["missing", "plain", "directory", "bad"].map(status_of).to_vec(),
        returns_from_substitution: substitution.stdout == "0\n",
        keeps_lock: start("exec 9> lock; flock 9", "locked").descriptors().contains_key(&9),
        passes_ignored_interrupt_on: start("trap '' INT", "trapped").signals("SigIgn").contains(&2),
        keeps_terminal: typed.descriptors().values().any(|path| path.starts_with("/dev/pts")),
        leads_session: typed.session() != terminal.shell.pid.as_raw(),
    }
}

#[test]
fn detach_has_none_of_the_faults_that_its_peers_are_measured_for() {
    let facts = measure(WAYS[0].1);
    assert_eq!(facts.statuses, ["127", "126", "126", "127"]);
    assert!(facts.returns_from_substitution);
    assert!(!facts.keeps_lock);
    assert!(!facts.passes_ignored_interrupt_on);
    assert!(!facts.keeps_terminal);
    assert!(facts.leads_session);
}

#[test]
#[ignore = "prints the table of the README"]
fn peers_table() {
    if !is_installed("daemonize") {
        return;
    }
    let yes = |fact: bool| if fact { "yes" } else { "no" };
    let facts: Vec<Facts> = WAYS.iter().map(|(_, line)| measure(line)).collect();
    let row = |title: &str, cell: &dyn Fn(&Facts) -> String| {
        let cells: Vec<String> = facts.iter().map(cell).collect();
        println!("| {title} | {} |", cells.join(" | "));
    };
    println!("| | {} |", WAYS.map(|(title, _)| format!("`{title}`")).join(" | "));
    println!("|---|{}", "---|".repeat(WAYS.len()));
    row("exit status: not found", &|facts| facts.statuses[0].clone());
    row("exit status: not executable", &|facts| facts.statuses[1].clone());
    row("exit status: a directory", &|facts| facts.statuses[2].clone());
    row("exit status: bad `#!` interpreter", &|facts| facts.statuses[3].clone());
    row("a session of its own", &|facts| yes(facts.leads_session).into());
    row("keeps the terminal open", &|facts| yes(facts.keeps_terminal).into());
    row("`out=$(…)` returns while it runs", &|facts| yes(facts.returns_from_substitution).into());
    row("keeps a lock inherited on descriptor 9", &|facts| yes(facts.keeps_lock).into());
    row("inherits a script's ignored SIGINT", &|facts| yes(facts.passes_ignored_interrupt_on).into());
}
