//! The journal under everything that can happen at the same time: starts by the thousand, prunes that are stopped or
//! killed at any system call, readers, and SIGKILL for any of them. No job that runs is ever lost.
//!
//! Damaged lines are tested in `listing`, old ones and those from elsewhere in `pruning`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{DETACH, Process, Run, Sandbox, await_result, eventually, mode, storage};

/// What is traced of a start: all that creates files, locks, or reads directories.
const CALLS: &str = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,\
    rename,renameat,renameat2,unlink,unlinkat,flock,fcntl,getdents,getdents64,execve";

#[test]
fn start_creates_no_file_but_a_log_and_takes_no_lock_and_reads_no_directory() {
    requires!(strace);
    for (options, files) in [
        ("", &["sleep-PID.log"][..]),
        ("-o /dev/null", &[]),
        ("-o /dev/null -e log", &["log"]),
        ("--full", &[]),
        ("-t", &["sleep-PID.log"]),
        ("-t --full -o /dev/null", &[]),
    ] {
        let sandbox = Sandbox::new();
        // The first start makes the directory, and the first of a boot makes the journal.
        sandbox.detach(["-o", "/dev/null", "true"]).succeeds_silently();
        // Each process, up to its exec.
        let strace = format!("strace -f -b execve -o ../trace -e trace={CALLS} detach {options} -P sleep 60");
        let job = Process::started(&sandbox.sh(&strace).succeeds());
        let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
        let created: Vec<String> = trace
            .lines()
            .filter(|call| call.contains("O_CREAT"))
            .map(|call| call.split('"').nth(1).unwrap().replace(&job.pid.to_string(), "PID"))
            .map(|path| Path::new(&path).file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(created, files, "{options}: {trace}");
        // What else is traced: files that are opened, and execs. In this build, closing a file asks for its flags.
        let is_harmless = |call: &&str| ["openat(", "F_GETFD", "execve", "+++"].iter().any(|name| call.contains(name));
        let others: Vec<&str> = trace.lines().filter(|call| !is_harmless(call)).collect();
        assert_eq!(others, [""; 0], "{options}");
    }
}

#[test]
fn journal_is_for_its_owner_alone_whatever_the_umask() {
    let sandbox = Sandbox::new();
    let journal = storage::journal(&sandbox);
    for umask in ["000", "777"] {
        let job = sandbox.sh(&format!("umask {umask}; exec detach -P -o /dev/null sleep 60")).succeeds();
        assert_eq!(mode(&journal), 0o600, "{umask}");
        sandbox.detach(["-o", "/dev/null", "true"]).succeeds_silently();
        eventually(|| sandbox.processes().len() == 1);
        // A prune makes the journal anew.
        sandbox.sh(&format!("umask {umask}; detach --prune 0")).succeeds();
        assert_eq!(mode(&journal), 0o600, "{umask}");
        Process::started(&job).kill();
        fs::remove_dir_all(sandbox.state()).unwrap();
    }
}

/// A job that is started while another process reads what there is.
#[test]
fn job_that_is_started_while_the_journal_is_read_has_not_ended() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let ended = sandbox.job(["-o", "/dev/null", "true"]);
    eventually(|| ended.is_dead());
    for words in [&["--list"][..], &["--prune", "0"]] {
        let stopped = Stopped::at(&sandbox, &Moment { call: "openat".into(), number: 1 }, words);
        let job = sandbox.job(["sleep", "600"]);
        let output = stopped.resume().succeeds();
        let line = output.lines().find(|line| line.starts_with(&format!("{}\t", job.pid)));
        assert!(line.is_none_or(|line| line.contains("\trunning\t")), "{output}");
        assert_eq!(sandbox.state_of(&job), "running", "{words:?}");
        assert_eq!(fs::read_to_string(sandbox.state().join(format!("sleep-{}.log", job.pid))).unwrap(), "");
        job.kill();
    }
}

/// A system call of a prune on the journal.
#[derive(Clone, Debug)]
struct Moment {
    call: String,
    /// Among those of the same name, from 1.
    number: usize,
}

/// The options that make strace see only what is done with the journals: by name, and by descriptor.
fn only_journals(sandbox: &Sandbox) -> Vec<String> {
    let paths = [storage::journal(sandbox), storage::old_journal(sandbox)];
    let both = |path: &std::path::PathBuf| {
        [path.display().to_string(), path.file_name().unwrap().to_str().unwrap().to_owned()]
    };
    paths.iter().flat_map(both).flat_map(|path| ["-P".to_owned(), path]).collect()
}

/// What `detach --prune 0` does with the journals, in its order.
fn moments_of_prune(sandbox: &Sandbox) -> Vec<Moment> {
    let mut command = sandbox.command("strace");
    command.args(["-o", "../trace"]).args(only_journals(sandbox)).args([DETACH, "--prune", "0"]);
    Run::of(&mut command).succeeds_silently();
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let calls: Vec<&str> = trace.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
    for expected in ["renameat", "read", "write", "unlinkat"] {
        assert!(calls.iter().any(|call| call.starts_with(expected)), "no {expected}: {trace}");
    }
    let number = |place: usize| calls[..=place].iter().filter(|call| **call == calls[place]).count();
    (0..calls.len()).map(|place| Moment { call: calls[place].to_owned(), number: number(place) }).collect()
}

/// A detach that a signal has reached when it had made a certain system call.
struct Stopped {
    strace: Child,
    process: Process,
}

impl Stopped {
    #[track_caller]
    fn at(sandbox: &Sandbox, moment: &Moment, words: &[&str]) -> Self {
        // Several may be stopped at once.
        let trace = format!("trace{}", words[0]);
        let _ = fs::remove_file(sandbox.path(&trace));
        let mut command = sandbox.strace_at(moment, "STOP", &trace);
        let mut strace = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        await_result(|| {
            let trace = fs::read_to_string(sandbox.path(&trace)).unwrap_or_default();
            let has_ended = strace.try_wait().unwrap().is_some();
            if trace.contains("--- stopped by SIGSTOP ---") || has_ended { Ok(()) } else { Err(trace) }
        });
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id())).unwrap();
        Self { strace, process: Process::new(children.trim().parse().unwrap()) }
    }

    #[track_caller]
    fn resume(self) -> Run {
        self.process.signal(Signal::SIGCONT);
        Run::from(self.strace.wait_with_output().unwrap())
    }
}

impl Sandbox {
    /// `strace … detach`, which a signal reaches at this moment.
    fn strace_at(&self, moment: &Moment, signal: &str, trace: &str) -> std::process::Command {
        let Moment { call, number } = moment;
        let mut command = self.command("strace");
        command.args(["-o", &format!("../{trace}"), "-e", &format!("inject={call}:signal={signal}:when={number}")]);
        command.args(only_journals(self)).arg(DETACH);
        command
    }

    /// Starts a job that runs, and which nothing may hold up.
    #[track_caller]
    fn job_in_time(&self) -> Process {
        let mut command = self.command("timeout");
        Process::started(&Run::of(command.args(["30", DETACH, "-P", "sleep", "600"])).succeeds())
    }

    /// The PIDs of the jobs that `--list` shows as running, in order.
    #[track_caller]
    fn running(&self) -> Vec<String> {
        let lines = self.list(&["--all"]).into_iter();
        lines.filter(|line| line[2] == "running").map(|line| line[0].clone()).collect()
    }

    /// Starts a job that runs, and one that ends.
    fn running_and_ended_job(&self) -> Process {
        let running = self.job(["sleep", "600"]);
        let ended = self.job(["true"]);
        eventually(|| ended.is_dead());
        running
    }
}

#[test]
fn stopped_prune_delays_no_start_and_hides_no_job() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let first = sandbox.running_and_ended_job();
    let mut jobs = vec![first.pid.to_string()];
    let moments = moments_of_prune(&sandbox);
    let move_aside = moments.iter().position(|moment| moment.call.starts_with("rename")).unwrap();
    for (place, moment) in moments.into_iter().enumerate() {
        let ended = sandbox.job(["true"]);
        eventually(|| ended.is_dead());
        let stopped = Stopped::at(&sandbox, &moment, &["--prune", "0"]);
        assert_eq!(sandbox.running(), jobs, "{moment:?}");
        // The first of them may make the journal anew.
        for _ in 0..2 {
            jobs.push(sandbox.job_in_time().pid.to_string());
        }
        let tracked = sandbox.job(["-t", "true"]);
        sandbox.end_of(&tracked);
        assert_eq!(sandbox.running(), jobs, "{moment:?}");
        stopped.resume().succeeds_silently();
        assert_eq!(sandbox.running(), jobs, "{moment:?}");
        // What is known of a job that has ended meanwhile is not lost either.
        assert!(place < move_aside || sandbox.end_of(&tracked)["status"] == 0, "{moment:?}");
        assert_eq!(storage::record_files(&sandbox).len(), 1, "{moment:?}");
    }
    assert_all_recorded_once(&sandbox);
}

#[test]
fn list_that_is_overtaken_by_a_prune_misses_no_job() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let mut jobs = vec![sandbox.running_and_ended_job().pid.to_string()];
    let moments = moments_of_prune(&sandbox);
    let of_prune = ["renameat", "write", "unlinkat"];
    let of_prune = of_prune.map(|name| moments.iter().find(|moment| moment.call.starts_with(name)).unwrap());
    let of_list = [1, 2].map(|number| Moment { call: "openat".into(), number });
    for (list, prune) in of_list.iter().flat_map(|list| of_prune.map(|prune| (list, prune))) {
        for is_list_first in [true, false] {
            let ended = sandbox.job(["true"]);
            eventually(|| ended.is_dead());
            let stop_list = || Stopped::at(&sandbox, list, &["--list", "--all"]);
            let stop_prune = || Stopped::at(&sandbox, prune, &["--prune", "0"]);
            let (output, new) = if is_list_first {
                let (list, prune) = (stop_list(), stop_prune());
                // It may make the journal anew. Whether the list has it is a matter of time.
                let new = sandbox.job_in_time().pid.to_string();
                let output = list.resume().succeeds();
                prune.resume().succeeds_silently();
                (output, Some(new))
            } else {
                let (prune, list) = (stop_prune(), stop_list());
                prune.resume().succeeds_silently();
                (list.resume().succeeds(), None)
            };
            let listed = output.lines().map(|line| line.split('\t').collect::<Vec<_>>());
            let listed: Vec<&str> = listed.filter(|line| line[2] == "running").map(|line| line[0]).collect();
            let missing: Vec<&String> = jobs.iter().filter(|job| !listed.contains(&job.as_str())).collect();
            assert_eq!(missing, [&""; 0], "{list:?}, {prune:?}, {is_list_first}: {output}");
            jobs.extend(new);
            assert_eq!(sandbox.running(), jobs);
        }
    }
}

#[test]
fn killed_prune_loses_nothing_and_the_next_one_cleans_up() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let first = sandbox.running_and_ended_job();
    let mut jobs = vec![first.pid.to_string()];
    for moment in moments_of_prune(&sandbox) {
        // The second one finds what the first one has left.
        for _ in 0..2 {
            let ended = sandbox.job(["true"]);
            eventually(|| ended.is_dead());
            let run = Run::of(sandbox.strace_at(&moment, "KILL", "trace").args(["--prune", "0"]));
            assert!([0, 137].contains(&run.status), "{moment:?}: {run:?}");
            assert_eq!(sandbox.running(), jobs, "{moment:?}");
            jobs.push(sandbox.job(["sleep", "600"]).pid.to_string());
            assert_eq!(sandbox.running(), jobs, "{moment:?}");
        }
        sandbox.detach(["--prune", "0"]).succeeds_silently();
        let records: Vec<String> = sandbox.records().iter().map(|record| record["pid"].to_string()).collect();
        assert_eq!(records, jobs, "{moment:?}");
        assert_eq!(storage::record_files(&sandbox).len(), 1, "{moment:?}");
        assert_eq!(sandbox.logs().len(), jobs.len(), "{moment:?}");
    }
    assert_all_recorded_once(&sandbox);
}

#[test]
fn prune_without_ended_jobs_cleans_up_after_a_killed_one() {
    requires!(strace);
    let sandbox = Sandbox::new();
    let job = sandbox.running_and_ended_job();
    let moments = moments_of_prune(&sandbox);
    let ended = sandbox.job(["true"]);
    eventually(|| ended.is_dead());
    let last = moments.iter().find(|moment| moment.call == "unlinkat").unwrap();
    Run::of(sandbox.strace_at(last, "KILL", "trace").args(["--prune", "0"])).exits(137);
    assert_eq!(storage::record_files(&sandbox).len(), 2);
    sandbox.detach(["--prune", "30d"]).succeeds_silently();
    assert_eq!(sandbox.running(), [job.pid.to_string()]);
    assert_eq!(storage::record_files(&sandbox), [storage::record_file_of(&job)]);
}

/// A start that was withdrawn is no job, so no age keeps it.
#[test]
fn prune_removes_what_failed_starts_have_recorded() {
    let sandbox = Sandbox::new();
    sandbox.script("broken", "#!/no/such/interpreter\n");
    sandbox.detach(["-o", "/dev/null", "./broken"]).exits(127);
    assert_eq!(sandbox.records(), [""; 0]);
    assert_eq!(storage::events(&sandbox).len(), 2);
    sandbox.detach(["--prune", "30d"]).succeeds_silently();
    assert_eq!(sandbox.files(""), [""; 0]);
}

/// Asserts that each living `sleep` of the sandbox has one record, and that each record of a job that runs has a
/// process.
#[track_caller]
fn assert_all_recorded_once(sandbox: &Sandbox) {
    let is_settled = |process: &Process| process.runs("sleep") || process.runs(crate::support::TRACKER);
    let mut living: Vec<String> = await_result(|| {
        let processes = sandbox.processes();
        if processes.iter().all(is_settled) { Ok(processes) } else { Err(format!("{processes:?}")) }
    })
    .into_iter()
    .filter(|process| process.runs("sleep"))
    .map(|process| process.pid.to_string())
    .collect();
    living.sort();
    let list = sandbox.detach(["--list", "--all", "--json"]).exits(0);
    let records = list.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut running: Vec<String> =
        records.filter(|record| record["state"] == "running").map(|record| record["pid"].to_string()).collect();
    running.sort();
    assert_eq!(running, living);
}

/// Whether processes are killed now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killing {
    None,
    Some,
}

#[test]
fn thousand_starts_beside_prunes_lists_and_stops_are_all_recorded() {
    storm(1000, Killing::None);
}

#[test]
fn starts_of_which_some_are_killed_are_all_recorded() {
    storm(400, Killing::Some);
}

/// Many starts in 20 threads, each of which runs processes, and prunes, lists and stops beside them. Every fourth job
/// runs to the end of the test.
fn storm(starts: u32, killing: Killing) {
    const THREADS: u32 = 20;
    let sandbox = Sandbox::new();
    let next = AtomicU32::new(0);
    let has_ended = AtomicBool::new(false);
    // The number of each job that runs, by its PID.
    let running = Mutex::new(BTreeMap::new());
    let rounds = || (0..).take_while(|_| !has_ended.load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= starts {
                            break;
                        }
                        start_one(&sandbox, number, killing, &running);
                    }
                })
            })
            .collect();
        for words in [&["--prune", "0"][..], &["--stop", "--all", "victim"]] {
            let (rounds, sandbox) = (rounds(), &sandbox);
            scope.spawn(move || rounds.for_each(|round| run_beside(sandbox, words, killing, round)));
        }
        scope.spawn(|| {
            for round in rounds() {
                if killing == Killing::Some && round % 2 == 0 {
                    run_beside(&sandbox, &["--list", "--all"], killing, round);
                } else {
                    assert_all_are_listed(&sandbox, &running, killing);
                }
            }
        });
        for starter in starters {
            starter.join().unwrap();
        }
        has_ended.store(true, Ordering::Relaxed);
    });
    assert_all_are_listed(&sandbox, &running, killing);
    sandbox.detach(["-q", "--stop", "--all", "victim"]).exits(0);
    eventually(|| !sandbox.processes().iter().any(|process| process.runs("sleep 700")));
    assert_all_recorded_once(&sandbox);
    sandbox.detach(["-q", "--prune", "0"]).exits(0);
    assert_all_recorded_once(&sandbox);
    assert_eq!(storage::record_files(&sandbox).len(), 1);
    // Each of these jobs has a log, and nothing else has.
    let records = sandbox.detach(["--list", "--all", "--json"]).exits(0).stdout;
    let record = |line| serde_json::from_str::<Value>(line).unwrap();
    let log_of = |line| record(line)["stdout"]["log"].as_str().unwrap().to_owned();
    let mut logs: Vec<String> = records.lines().map(log_of).collect();
    logs.sort();
    let state = sandbox.state().display().to_string();
    assert_eq!(sandbox.logs().iter().map(|log| format!("{state}/{log}")).collect::<Vec<_>>(), logs);
}

/// Starts job `number`: every fourth runs on, every eighth is there to be stopped, and the others end at once.
fn start_one(sandbox: &Sandbox, number: u32, killing: Killing, running: &Mutex<BTreeMap<i64, u32>>) {
    let argument = format!("600.{number}");
    let mut command = sandbox.command(DETACH);
    match number % 8 {
        0 | 4 => command.args(["-P", "sleep", &argument]),
        1 => command.args(["-P", "-N", "victim", "sleep", "700"]),
        _ => command.args(["-P", "true", &argument]),
    };
    if killing == Killing::Some && number % 8 == 4 {
        run_and_kill(&mut command, number);
        return;
    }
    let pid: i64 = Run::of(&mut command).succeeds().trim().parse().unwrap();
    if number.is_multiple_of(8) {
        running.lock().unwrap().insert(pid, number);
    }
}

/// Runs `detach WORDS`, and kills it when it is told to, two times out of three.
fn run_beside(sandbox: &Sandbox, words: &[&str], killing: Killing, round: u32) {
    let mut command = sandbox.command(DETACH);
    command.args(words);
    if killing == Killing::Some && !round.is_multiple_of(3) {
        run_and_kill(&mut command, round);
        return;
    }
    let run = Run::of(&mut command).exits(0);
    assert!(killing == Killing::Some || run.stderr.is_empty(), "{run:?}");
}

/// Runs a command, and kills it at a moment that differs from number to number.
fn run_and_kill(command: &mut std::process::Command, number: u32) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    spin(Duration::from_micros(u64::from(number) * 1_237 % 12_000));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A moment is what is wanted here: it is too short to sleep.
fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Asserts that every job that ran before is listed as running, once and with its own command line. A process that was
/// killed may have left a line that was cut short.
#[track_caller]
fn assert_all_are_listed(sandbox: &Sandbox, running: &Mutex<BTreeMap<i64, u32>>, killing: Killing) {
    let expected = running.lock().unwrap().clone();
    let list = sandbox.detach(["--list", "--all", "--json"]).exits(0);
    assert!(killing == Killing::Some || list.stderr.is_empty(), "{}", list.stderr);
    let mut found = BTreeMap::new();
    for line in list.stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let pid = record["pid"].as_i64().unwrap();
        let Some(number) = expected.get(&pid) else { continue };
        assert_eq!(record["argv"], json!(["sleep", format!("600.{number}")]), "{record}");
        assert_eq!(record["state"], "running", "{record}");
        assert_eq!(found.insert(pid, *number), None, "twice: {record}");
    }
    assert_eq!(found, expected);
}
