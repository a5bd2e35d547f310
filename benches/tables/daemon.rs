//! In which state each way to become a daemon leaves its program.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Process, Sandbox, Terminal};

/// A program that calls daemon(3), and then executes its arguments.
const DAEMON_3: &str = "#define _DEFAULT_SOURCE\n#include <unistd.h>\n\
    int main(int c, char **v) { if (c < 2 || daemon(0, 0)) return 1; execv(v[1], v + 1); return 1; }\n";

/// Writes its PID to a file and sleeps. It is no script: shells and perl change the signals that they start with.
const PROGRAM: &str = "#include <stdio.h>\n#include <unistd.h>\n\
    int main(int c, char **v) { char n[4096]; snprintf(n, sizeof n, \"%s.new\", v[1]); FILE *f = fopen(n, \"w\");\n\
    if (!f) return 1; fprintf(f, \"%d\\n\", (int)getpid()); fclose(f); rename(n, v[1]); sleep(60); return c; }\n";

pub fn print() {
    requires!(cc, perl, daemonize, daemon, "start-stop-daemon");
    let sandbox = Sandbox::new();
    sandbox.write("daemon.c", DAEMON_3);
    sandbox.write("program.c", PROGRAM);
    sandbox.sh("cc -o daemon3 daemon.c && cc -o program program.c").succeeds();
    sandbox.script("bad", "#!/no/such/interpreter\n");
    let work = sandbox.path("work").display().to_string();
    let ways = [
        ("detach --full", "detach --full COMMAND".to_owned()),
        ("daemon(3)", format!("{work}/daemon3 COMMAND")),
        ("daemonize", "daemonize COMMAND".to_owned()),
        ("libslack daemon", "daemon -U -- COMMAND".to_owned()),
        ("start-stop-daemon -b", "start-stop-daemon -S -b -x PROGRAM -- ARGUMENTS".to_owned()),
    ];
    // The title of each row, and what daemon(7) asks for.
    let titles = [
        ("parent", "init"),
        ("leads its session", "no"),
        ("leads its process group", ""),
        ("directory", "/"),
        ("umask", "0000"),
        ("stdin, stdout, stderr", "/dev/null"),
        ("inherited descriptor 9", "closed"),
        ("SIGHUP", "default"),
        ("SIGCHLD", "default"),
        ("ignored SIGINT", "default"),
        ("blocked SIGUSR1", "unblocked"),
        ("exit status: bad `#!` interpreter", "reported"),
    ];
    let mut columns = Vec::new();
    for (number, (_, line)) in ways.iter().enumerate() {
        let file = sandbox.path(&format!("table{number}"));
        let line_for = |program: &str, arguments: &str| {
            line.replace("COMMAND", &format!("{work}/{program} {arguments}"))
                .replace("PROGRAM", &format!("{work}/{program}"))
                .replace("ARGUMENTS", arguments)
        };
        let mut terminal = Terminal::open_bash(&sandbox);
        let dirty = "perl -MPOSIX -e '$SIG{INT}=q(IGNORE); sigprocmask(SIG_BLOCK, POSIX::SigSet->new(10)); exec @ARGV'";
        let started = line_for("program", &file.display().to_string());
        let job = terminal.start(&format!("umask 027; exec 9>lock; {dirty} {started}"), &file);
        // When the shell is back at its prompt, the launcher has returned.
        terminal.run("true");
        let yes = |fact: bool| if fact { "yes".to_owned() } else { "no".to_owned() };
        let descriptors = job.descriptors();
        let streams: Vec<String> = (0..3)
            .map(|fd| descriptors.get(&fd).map_or("closed".to_owned(), |path| path.display().to_string()))
            .map(|path| if path.starts_with("pipe:") { "a pipe".to_owned() } else { path })
            .collect();
        let streams =
            if streams.iter().all(|path| *path == streams[0]) { streams[0].clone() } else { streams.join(", ") };
        let has = |set: &str, signal: u32| job.signals(set).contains(&signal);
        let disposition = |signal| if has("SigIgn", signal) { "ignored" } else { "default" }.to_owned();
        let parent = Process::new(job.parent());
        let parent =
            if parent.pid.as_raw() == std::process::id().cast_signed() { "init" } else { "the launcher stays" };
        let status = sandbox.sh(&format!("{} > /dev/null 2>&1; echo $?", line_for("bad", "")));
        columns.push([
            parent.to_owned(),
            yes(job.session() == job.pid.as_raw()),
            yes(job.group() == job.pid.as_raw()),
            fs::read_link(job.file("cwd")).unwrap().display().to_string().replace(&work, "kept"),
            job.status("Umask"),
            streams,
            if descriptors.contains_key(&9) { "open" } else { "closed" }.to_owned(),
            disposition(1),
            disposition(17),
            disposition(2),
            if has("SigBlk", 10) { "blocked" } else { "unblocked" }.to_owned(),
            status.stdout.trim().to_owned(),
        ]);
        job.signal(Signal::SIGKILL);
    }
    let names: Vec<String> = ways.iter().map(|(name, _)| format!("`{name}`")).collect();
    println!("| | {} | daemon(7) requires |", names.join(" | "));
    println!("|---|{}---|", "---|".repeat(ways.len()));
    for (row, (title, asked)) in titles.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        println!("| {title} | {} | {asked} |", cells.join(" | "));
    }
}
