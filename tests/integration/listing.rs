//! `--list`: which jobs are listed, with what state, time and output, on a terminal and for scripts.
//!
//! Damaged records, records from elsewhere, and starts that are killed or made by the thousand: every other job is
//! listed all the same.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::support::{DETACH, Process, Run, Sandbox, TRACKER, Terminal, await_result, bytes, eventually, storage};

/// PID, state and command of each line.
fn states(lines: &[Vec<String>]) -> Vec<[&str; 3]> {
    lines.iter().map(|line| [line[0].as_str(), line[2].as_str(), line[6].as_str()]).collect()
}

#[test]
fn jobs_are_listed_with_their_states() {
    let sandbox = Sandbox::new();
    let failed = sandbox.job(["-t", "sh", "-c", "echo words; exit 2"]);
    let killed = sandbox.job(["-t", "-N", "a name", "sleep", "60"]);
    let unknown = sandbox.job(["-o", "/dev/null", "true"]);
    let running = sandbox.job(["sleep", "61"]);
    let stopped = sandbox.job(["sleep", "62"]);
    killed.signal(Signal::SIGTERM);
    stopped.signal(Signal::SIGSTOP);
    eventually(|| {
        let lines = sandbox.list(&[]);
        states(&lines)
            == [
                [failed.pid.to_string().as_str(), "exited 2", "sh -c 'echo words; exit 2'"],
                [killed.pid.to_string().as_str(), "killed by SIGTERM", "sleep 60"],
                [unknown.pid.to_string().as_str(), "ended", "true"],
                [running.pid.to_string().as_str(), "running", "sleep 61"],
                [stopped.pid.to_string().as_str(), "stopped", "sleep 62"],
            ]
    });
    let lines = sandbox.list(&[]);
    let names: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
    assert_eq!(names, ["sh", "a name", "true", "sleep", "sleep"]);
    // How long a job ran is known if it runs or was tracked.
    assert_eq!(lines.iter().map(|line| line[4] == "-").collect::<Vec<_>>(), [false, false, true, false, false]);
    let started = &lines[0][3];
    assert_eq!(started.replace(|letter: char| letter.is_ascii_digit(), "0"), "0000-00-00 00:00:00");
}

#[test]
fn size_of_output_is_listed() {
    let sandbox = Sandbox::new();
    for options in [&["-w"][..], &["-w", "-o/dev/null"], &["-w", "-o", "out", "-e", "err"]] {
        sandbox.detach(options.iter().chain(&["sh", "-c", "echo words; echo word >&2"])).succeeds_silently();
    }
    sandbox.detach(["-w", "true"]).succeeds_silently();
    let sizes: Vec<String> = sandbox.list(&[]).into_iter().map(|line| line[5].clone()).collect();
    assert_eq!(sizes, ["11 B", "-", "11 B", "0 B"]);
}

/// When the only job was started, as `detach --list` prints it with these variables.
fn start_in_list(sandbox: &Sandbox, variables: &[(&str, &str)]) -> String {
    let mut command = sandbox.command("timeout");
    let list = Run::of(command.args(["30", DETACH, "--list"]).envs(variables.iter().copied())).succeeds();
    list.split('\t').nth(3).unwrap().to_owned()
}

/// When the only job was started, as date(1) prints it for this time zone.
fn start_by_date(sandbox: &Sandbox, zone: &str) -> String {
    let at = sandbox.only_record()["started_at_ms"].as_u64().unwrap() / 1000;
    let mut command = sandbox.command("date");
    Run::of(command.env("TZ", zone).arg("-d").arg(format!("@{at}")).arg("+%F %T")).succeeds().trim_end().to_owned()
}

#[test]
fn times_are_local() {
    let sandbox = Sandbox::new();
    sandbox.job(["true"]);
    let names = ["UTC", "Asia/Kolkata", "America/New_York", ":Asia/Tokyo", "Nope/Nope", ""];
    let rules = ["CET-1CEST,M3.5.0,M10.5.0/3", "CET-1CEST", "<+0330>-3:30", "UTC0"];
    for zone in names.into_iter().chain(rules) {
        assert_eq!(start_in_list(&sandbox, &[("TZ", zone)]), start_by_date(&sandbox, zone), "{zone}");
    }
}

#[test]
fn time_zones_are_read_from_tzdir() {
    let sandbox = Sandbox::new();
    sandbox.job(["true"]);
    // tzfile(5): a header with six counts, then one type of five hours and its name; both twice, then the rule.
    let counts = [0, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    let part = [&b"TZif2"[..], &[0; 15], &counts, &18_000_i32.to_be_bytes(), &[0, 0], b"XYZ\0"].concat();
    let zones = sandbox.path("zones");
    fs::create_dir(&zones).unwrap();
    fs::write(zones.join("own"), [&part[..], &part, b"\nXYZ-5\n"].concat()).unwrap();
    // Opening this one would never return.
    mkfifo(&zones.join("fifo"), Mode::S_IRWXU).unwrap();
    for (zone, same) in [("own", "XYZ-5"), ("fifo", "UTC0")] {
        let listed = start_in_list(&sandbox, &[("TZDIR", zones.to_str().unwrap()), ("TZ", zone)]);
        assert_eq!(listed, start_by_date(&sandbox, same), "{zone}");
    }
}

/// The commands in `detach --list OPTIONS`.
fn commands(sandbox: &Sandbox, options: &[&str]) -> BTreeSet<String> {
    sandbox.list(options).into_iter().map(|line| line[6].clone()).collect()
}

#[test]
fn last_ten_that_ended_are_listed_unless_all_are_asked_for() {
    let sandbox = Sandbox::new();
    let running = sandbox.job(["sleep", "60"]);
    // It is started before the others and ends after them.
    let tracked = sandbox.job(["-t", "sleep", "61"]);
    let ended: Vec<Process> = (0..12).map(|number| sandbox.job(["true", &number.to_string()])).collect();
    eventually(|| ended.iter().all(Process::is_dead));
    tracked.signal(Signal::SIGKILL);
    sandbox.end_of(&tracked);
    let expected = (3..12).map(|number| format!("true {number}"));
    let expected: BTreeSet<String> = expected.chain(["sleep 61".to_owned(), "sleep 60".to_owned()]).collect();
    assert_eq!(commands(&sandbox, &[]), expected);
    assert_eq!(commands(&sandbox, &["--all"]).len(), 14);
    assert!(running.is_alive());
}

#[test]
fn list_on_a_terminal_says_how_many_are_not_listed() {
    let sandbox = Sandbox::new();
    let end_jobs = |count| (0..count).for_each(|_| sandbox.detach(["-w", "true"]).succeeds_silently());
    end_jobs(11);
    let mut terminal = Terminal::open(&sandbox);
    let screen = terminal.succeeds("detach --list");
    assert!(screen.contains("detach: 1 more job has ended; 'detach --list --all' lists it\r\n"), "{screen:?}");
    end_jobs(2);
    let screen = terminal.succeeds("detach --list");
    assert!(screen.contains("detach: 3 more jobs have ended; 'detach --list --all' lists them\r\n"), "{screen:?}");
    assert!(!terminal.succeeds("detach --list --all").contains("--list --all' lists"));
}

#[test]
fn list_opens_one_journal_for_all_jobs() {
    requires!(strace);
    let sandbox = Sandbox::new();
    sandbox.detach(["-w", "true"]).succeeds_silently();
    storage::add_copies(&sandbox, 300);
    // The second is that of a prune at work.
    let run = sandbox.sh("strace -o ../trace -e trace=openat detach --list | wc -l; grep -c '.jsonl' ../trace");
    assert_eq!(run.succeeds(), "10\n2\n");
}

#[test]
fn table_fits_the_width_of_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "60", "", "a b", "naïve", "\x1b[2J", &"x".repeat(300)]);
    sandbox.job(["-N", "宽字符的名字也要对齐", "sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    for width in [30, 80, 120] {
        let screen = terminal.succeeds(&format!("stty cols {width}; detach --list"));
        let lines: Vec<&str> = screen.lines().skip_while(|line| !line.contains("PID  NAME")).collect();
        assert_eq!(lines.len(), 3, "{screen:?}");
        let columns = |line: &str| line.chars().map(|letter| if letter > '\u{2fff}' { 2 } else { 1 }).sum::<usize>();
        assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:?}");
        if width == 120 {
            let title = lines[0].find("COMMAND").unwrap();
            let command = lines[1].char_indices().nth(title).unwrap().0;
            assert!(lines[1][command..].starts_with(r"sleep 60 '' 'a b' naïve '\x1b[2J' xx"), "{lines:?}");
            assert!(lines[1].ends_with("x…"), "{lines:?}");
        }
    }
}

#[test]
fn list_is_coloured_on_terminals_that_want_it() {
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    let mut has_colour = |line: &str| terminal.succeeds(line).contains("\u{1b}[");
    assert!(has_colour("env -u NO_COLOR detach --list"));
    assert!(!has_colour("env NO_COLOR=1 detach --list"));
    assert!(!has_colour("env -u NO_COLOR TERM=dumb detach --list"));
    assert!(!has_colour("env -u NO_COLOR detach --list | cat"));
}

#[test]
fn list_as_json_has_every_field_and_every_byte() {
    let sandbox = Sandbox::new();
    let job = sandbox.job([bytes(b"-t"), bytes(b"-N"), bytes(b"n\xff"), bytes(b"true"), bytes(b"a\xfe\n"), bytes(b"")]);
    sandbox.end_of(&job);
    let list = sandbox.detach(["--list", "--json"]).succeeds();
    assert_eq!(list.lines().count(), 1);
    let mut record: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(record["argv"], json!(["true", [97, 254, 10], ""]));
    assert_eq!(record["name"], json!([110, 255]));
    assert_eq!((&record["state"], &record["output_bytes"]), (&json!("exited"), &json!(0)));
    assert_eq!(record["end"]["status"], 0);
    let mut take = |name: &str| record.as_object_mut().unwrap().remove(name).unwrap();
    let [end, tracker] = ["end", "tracker"].map(|name| names(&take(name)));
    let of_end = ["core_dumped", "cpu_ms", "ended_at_ms", "peak_memory_bytes", "signal", "status", "wall_ms"];
    assert_eq!(end, of_end.map(str::to_owned).into());
    assert_eq!(tracker, ["pid", "start_time"].map(str::to_owned).into());
    let others = [
        "argv",
        "boot_id",
        "directory",
        "host",
        "name",
        "output_bytes",
        "pid",
        "pid_namespace",
        "processes_left",
        "session",
        "session_ended_at_ms",
        "start_time",
        "started_at_ms",
        "state",
        "stderr",
        "stdout",
        "time_namespace",
        "unit",
        "version",
    ];
    assert_eq!(names(&record), others.map(str::to_owned).into());
}

/// The names of the fields of a JSON object.
fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn job_of_another_boot_has_ended() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    storage::move_to_other_boot(&sandbox);
    let pid = job.pid.to_string();
    assert_eq!(states(&sandbox.list(&[])), [[&pid, "ended", "sleep 60"]]);
    sandbox.detach(["-v", "--stop", &pid]).warns(&format!("detach: 'sleep' (PID {pid}) has already ended"));
    assert!(job.is_alive());
}

#[test]
fn process_with_the_pid_of_an_ended_job_is_not_a_job() {
    requires!(root, unshare);
    let sandbox = Sandbox::new();
    // In a PID namespace of its own, the script can choose the next PID. The clock ticks between the two processes.
    let script = r#"
        job=$(detach -P sleep 60)
        kill -9 $job; while kill -0 $job 2>/dev/null; do :; done
        tick=$(cut -d' ' -f22 /proc/self/stat)
        until [ "$(cut -d' ' -f22 /proc/self/stat)" -gt $((tick + 2)) ]; do :; done
        until [ "$other" = "$job" ]; do
            [ -z "$other" ] || kill -9 "$other"
            echo $((job - 1)) > /proc/sys/kernel/ns_last_pid
            sleep 60 > /dev/null 2>&1 & other=$!
        done
        detach --list | cut -f1,3 | sed "s/$job/JOB/"
        detach -v --stop $job 2>&1 | sed "s/$job/JOB/"
        detach -v --stop sleep --signal KILL 2>&1 | sed "s/$job/JOB/"
        detach --join $job 2>&1 | sed "s/$job/JOB/"
        detach -q --prune 0
        kill -0 $other && echo lives
        kill -9 $other
    "#;
    let mut command = sandbox.command("unshare");
    let stdout = Run::of(command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script])).exits(0).stdout;
    let expected = "JOB\tended\n\
        detach: 'sleep' (PID JOB) has already ended\n\
        detach: 'sleep' (PID JOB) has already ended\n\
        detach: 'sleep' (PID JOB) has ended; its exit status is unknown (start it with --track to record it)\n\
        lives\n";
    assert_eq!(stdout, expected);
}

#[test]
fn json_holds_no_control_characters() {
    let sandbox = Sandbox::new();
    let name = "a\u{7f}b\u{9b}c\u{202e}d\u{e0041}é";
    let json = sandbox.detach(["--json", "-N", name, "sleep", "60"]).succeeds();
    let list = sandbox.detach(["--list", "--json"]).succeeds();
    let check = sandbox.detach(["--check", "--json", name]).succeeds();
    for json in [&json, &list] {
        assert!(json.contains(r#""name":"a\u007fb\u009bc\u202ed\udb40\udc41é""#), "{json}");
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["name"], name);
    }
    assert!(!check.trim_end().contains(char::is_control), "{check}");
}

#[test]
fn damaged_record_is_reported_and_hides_no_other() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let text = storage::only_line(&sandbox);
    let pid = format!("\"pid\":{}", job.pid);
    let lines: [(Vec<u8>, &str); 7] = [
        (b"\x00\xff\xfe".to_vec(), "it is not JSON"),
        (vec![b'x'; 10_000_000], "it is not JSON"),
        (vec![0; 5000], "it is not JSON"),
        (b"{\"version\":1}".to_vec(), "it is not an event of a job"),
        (text.replace(&pid, "\"pid\":\"7\"").into(), "it is not an event of a job"),
        (text.replace("\"version\":1", "\"version\":2").into(), "it has version 2, but only version 1 is supported"),
        // The last one: what is appended to it is read all the same.
        (text.as_bytes()[..text.len() / 2].to_vec(), "it is cut short"),
    ];
    let mut expected = Vec::new();
    let journal = storage::journal(&sandbox);
    for (line, reason) in lines {
        storage::append(&sandbox, [b"\n", &line[..]].concat());
        let number = fs::read(&journal).unwrap().split(|byte| *byte == b'\n').count();
        expected.push(format!("detach: warning: cannot read line {number} of '{}': {reason}", journal.display()));
    }
    let other = sandbox.job(["sleep", "61"]);

    // Files that are no journal.
    let path = |name: &str| sandbox.state().join(name);
    fs::create_dir(path("a.jsonl")).unwrap();
    symlink("/etc/passwd", path("b.jsonl")).unwrap();
    mkfifo(&path("c.jsonl"), Mode::S_IRWXU).unwrap();
    fs::write(path("d.jsonl"), "{}").unwrap();
    fs::write(path("e.json"), "{}").unwrap();
    let others = [
        ("read", "a", "is a directory"),
        ("read", "b", "it is a symbolic link"),
        ("read line 1 of", "d", "it is not an event of a job"),
    ];
    expected.extend(others.map(|(verb, name, reason)| {
        format!("detach: warning: cannot {verb} '{}': {reason}", path(&format!("{name}.jsonl")).display())
    }));
    expected.sort();
    let before = fs::read(&journal).unwrap();

    let run = sandbox.detach(["--list"]).exits(0);
    let mut warnings: Vec<&str> = run.stderr.lines().collect();
    warnings.sort_unstable();
    assert_eq!(warnings, expected);
    let listed: Vec<&str> = run.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(listed, [&job, &other].map(|job| job.pid.to_string()));
    // They stop neither --prune, which removes all of them but those of other versions, nor --stop.
    let ended = sandbox.job(["true"]);
    eventually(|| ended.is_dead());
    sandbox.detach(["-q", "--prune", "0"]).exits(0);
    let has_pid = |line: &&[u8]| serde_json::from_slice::<Value>(line).is_ok_and(|it| it["job"]["pid"].is_u64());
    let kept: Vec<&[u8]> = without_blank_lines(&before).into_iter().filter(has_pid).collect();
    let after = fs::read(&journal).unwrap();
    assert!(kept.len() == 3 && without_blank_lines(&after) == kept, "{}", String::from_utf8_lossy(&after));
    let names = ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.json"];
    assert!(names.iter().all(|name| path(name).symlink_metadata().is_ok()));
    sandbox.detach(["-q", "--stop", &job.pid.to_string(), &other.pid.to_string()]).exits(0);
    eventually(|| job.is_dead() && other.is_dead());
}

fn without_blank_lines(journal: &[u8]) -> Vec<&[u8]> {
    journal.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

#[test]
fn empty_list_is_not_an_error_and_creates_no_directory() {
    let sandbox = Sandbox::new();
    for options in [&["--list"][..], &["--list", "--all", "--json"], &["--prune"]] {
        sandbox.detach(options).succeeds_silently();
    }
    assert!(!sandbox.state().exists());
}

#[test]
fn list_without_a_home_is_125() {
    let sandbox = Sandbox::new();
    let run = Run::of(sandbox.command(DETACH).env_remove("HOME").arg("--list")).exits(125);
    let sentence = "detach: cannot find a place for logs and records: HOME is not set to an absolute path\n";
    assert!(run.stderr.starts_with(sentence), "{run:?}");
}

#[test]
fn list_on_a_terminal_reports_large_logs_of_ended_jobs() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let log = sandbox.log_file();
    let grow = |bytes| fs::File::options().write(true).open(&log).unwrap().set_len(bytes).unwrap();
    let mut terminal = Terminal::open(&sandbox);
    let line =
        "detach: logs of ended jobs take up 100 MiB; 'detach --prune' removes jobs that ended more than 7 days ago\r\n";
    let limit = 100 * 1024 * 1024;
    grow(limit + 1);
    assert!(!terminal.succeeds("detach --list").contains(line));
    job.kill();
    assert!(terminal.succeeds("detach --list").contains(line));
    grow(limit);
    assert!(!terminal.succeeds("detach --list").contains(line));
}

#[test]
fn thousand_starts_at_once_are_all_recorded() {
    let sandbox = Sandbox::new();
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let number = next.fetch_add(1, Ordering::Relaxed).to_string();
                    let stdout = sandbox.detach(["-P", "--json", "sh", "-c", "echo $0", &number]).succeeds();
                    let (pid, json) = stdout.split_once('\n').unwrap();
                    let json: Value = serde_json::from_str(json).unwrap();
                    assert_eq!((json["pid"].to_string().as_str(), json["argv"][3].as_str()), (pid, Some(&*number)));
                }
            });
        }
    });
    let mut records = sandbox.records();
    records.sort_by_key(|record| record["argv"][3].as_str().unwrap().parse::<u32>().unwrap());
    assert_eq!(records.len(), 1000);
    eventually(|| sandbox.processes().is_empty());
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["argv"], json!(["sh", "-c", "echo $0", number.to_string()]));
        let log = record["stdout"]["log"].as_str().unwrap();
        assert_eq!(fs::read_to_string(log).unwrap(), format!("{number}\n"));
    }
    assert_eq!(sandbox.logs().len(), 1000);
}

#[test]
fn killed_detach_leaves_a_recorded_job_or_none() {
    requires!(strace);
    let sandbox = Sandbox::new();
    for options in ["", "-t --full"] {
        sandbox.sh(&format!("strace -o ../trace detach {options} -P true")).succeeds();
        let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
        let calls: Vec<&str> = trace.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
        assert!(calls.len() > 40, "{trace}");
        let number = |place: usize| calls[..=place].iter().filter(|call| **call == calls[place]).count();
        let last = |place: usize| !calls[place + 1..].contains(&calls[place]);
        // The first and the last of each kind of call.
        for (place, call) in calls.iter().enumerate().skip(1).filter(|(place, _)| number(*place) == 1 || last(*place)) {
            let _ = fs::remove_dir_all(sandbox.state());
            let number = number(place);
            // detach is killed in this system call; its children are not traced.
            let run = sandbox.sh(&format!(
                "strace -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={number} \
                 detach {options} -P sleep 60"
            ));
            let with_each_job = if options.contains("-t") { 2 } else { 1 };
            let processes = await_settled(&sandbox, with_each_job);
            let jobs: Vec<&Process> = processes.iter().filter(|it| it.runs("sleep")).collect();
            let lines = sandbox.list(&[]);
            let what = format!("{options:?}, {call} {number}: {run:?}, {processes:?}, {lines:?}");
            assert!(jobs.len() <= 1, "{what}");
            let expected: Vec<String> = jobs.iter().map(|job| job.pid.to_string()).collect();
            assert_eq!(lines.iter().map(|line| line[0].clone()).collect::<Vec<_>>(), expected, "{what}");
            assert!(lines.iter().all(|line| line[2] == "running"), "{what}");
            for process in &processes {
                process.signal(Signal::SIGKILL);
            }
            eventually(|| sandbox.processes().is_empty());
        }
    }
}

/// The processes of the sandbox, as soon as each has reached its last exec: `with_each_job` processes for each record.
fn await_settled(sandbox: &Sandbox, with_each_job: usize) -> Vec<Process> {
    let is_settled = |process: &Process| process.runs("sleep") || process.runs(TRACKER);
    await_result(|| {
        let processes = sandbox.processes();
        let is_complete = processes.len() == with_each_job * sandbox.records().len();
        if is_complete && processes.iter().all(is_settled) { Ok(processes) } else { Err(format!("{processes:?}")) }
    })
}

#[test]
fn jobs_of_earlier_boots_are_in_the_order_of_their_time() {
    let sandbox = Sandbox::new();
    for (name, boot) in [("older", "ffffffff-0000-0000-0000-000000000000"), ("newer", storage::OTHER_BOOT)] {
        sandbox.detach(["-w", "-N", name, "true"]).succeeds_silently();
        fs::rename(storage::journal(&sandbox), storage::journal_of(&sandbox, boot)).unwrap();
    }
    assert_eq!(sandbox.sh("detach --list | cut -f2").succeeds(), "older\nnewer\n");
    let joined = sandbox.detach(["-v", "--join"]).exits(0);
    assert!(joined.stderr.starts_with("detach: 'newer' "), "{joined:?}");
}

#[test]
fn damaged_line_is_reported_once() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["-N", "job", "sleep", "60"]);
    storage::append(&sandbox, "\nhello\n");
    let warning = "detach: warning: cannot read line ";
    let count = |run: &Run| run.stderr.lines().filter(|line| line.starts_with(warning)).count();
    let checked = sandbox.detach(["--check", "job", "job"]).exits(0);
    assert_eq!(count(&checked), 1, "{checked:?}");
    let joining = sandbox.command(DETACH).args(["--join", "job"]).stderr(Stdio::piped()).spawn().unwrap();
    let process = Process::new(joining.id().cast_signed());
    eventually(|| process.is_asleep());
    job.kill();
    let joined = Run::from(joining.wait_with_output().unwrap()).exits(125);
    assert_eq!(count(&joined), 1, "{joined:?}");
}
