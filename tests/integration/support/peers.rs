//! How detach and its peers differ beside survival: exit statuses, inherited locks and signals, the terminal.

use std::collections::BTreeSet;
use std::fs;

use super::process::{Process, process_named_in};
use super::run::Run;
use super::sandbox::Sandbox;
use super::terminal::Terminal;

/// A title, and what is typed in bash. COMMAND stands for a path, which daemonize requires to be absolute.
pub const WAYS: [(&str, &str); 5] = [
    ("detach", "detach COMMAND"),
    ("nohup … &", "nohup COMMAND &"),
    ("… & disown", "COMMAND & disown"),
    ("setsid -f", "setsid -f COMMAND"),
    ("daemonize", "daemonize COMMAND"),
];

/// Writes its PID to the file named by its argument, and sleeps.
const PROGRAM: &str = "#!/bin/sh\necho $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 60\n";

#[allow(clippy::struct_excessive_bools)] // each is a row of the table
pub struct Facts {
    /// The exit status for a command that does not exist, is not executable, is a directory, has a bad interpreter.
    pub statuses: Vec<String>,
    pub returns_from_substitution: bool,
    pub keeps_lock: bool,
    pub passes_ignored_interrupt_on: bool,
    pub keeps_terminal: bool,
    pub leads_session: bool,
}

pub fn measure(line: &str) -> Facts {
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
    // Starts the program after `before` and returns its process as soon as it sleeps.
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
