//! `--list`: which jobs there are and what is said of them, whatever lies in the directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::support::{DETACH, Process, Run, Sandbox, Terminal, await_result, bytes, eventually, is_installed, is_root};
use crate::tracking::{TRACKER, end_of};

/// What `detach --list` prints when it is not on a terminal: fields, line by line.
#[track_caller]
fn list(sandbox: &Sandbox, options: &[&str]) -> Vec<Vec<String>> {
    let run = sandbox.detach(["--list"].iter().chain(options));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    run.stdout.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

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
        let lines = list(&sandbox, &[]);
        states(&lines)
            == [
                [failed.pid.to_string().as_str(), "exited 2", "sh -c 'echo words; exit 2'"],
                [killed.pid.to_string().as_str(), "killed by TERM", "sleep 60"],
                [unknown.pid.to_string().as_str(), "ended", "true"],
                [running.pid.to_string().as_str(), "running", "sleep 61"],
                [stopped.pid.to_string().as_str(), "stopped", "sleep 62"],
            ]
    });
    let lines = list(&sandbox, &[]);
    let names: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
    assert_eq!(names, ["sh", "a name", "true", "sleep", "sleep"]);
    let sizes: Vec<&str> = lines.iter().map(|line| line[5].as_str()).collect();
    assert_eq!(sizes, ["6 B", "0 B", "-", "0 B", "0 B"]);
    // What goes to two files counts twice.
    assert_eq!(sandbox.detach(["-w", "-o", "o", "-e", "e", "sh", "-c", "echo abc; echo de >&2"]).status, 0);
    assert_eq!(list(&sandbox, &[])[5][5], "7 B");
    // How long it ran is known of those that run and those that are tracked.
    assert_eq!(lines.iter().map(|line| line[4] == "-").collect::<Vec<_>>(), [false, false, true, false, false]);
    let started = &lines[0][3];
    assert_eq!(started.replace(|letter: char| letter.is_ascii_digit(), "0"), "0000-00-00 00:00:00");
}

#[test]
fn times_are_local() {
    let sandbox = Sandbox::new();
    sandbox.job(["true"]);
    let started = |variables: &[(&str, &str)]| {
        let run = Run::of(sandbox.command("timeout").args(["30", DETACH, "--list"]).envs(variables.iter().copied()));
        run.stdout.split('\t').nth(3).unwrap().to_owned() + "\n"
    };
    let at = sandbox.records()[0]["started_at_ms"].as_u64().unwrap() / 1000;
    let names = ["UTC", "Asia/Kolkata", "America/New_York", ":Asia/Tokyo", "Nope/Nope", ""];
    let rules = ["CET-1CEST,M3.5.0,M10.5.0/3", "CET-1CEST", "<+0330>-3:30", "UTC0"];
    let date = |zone: &str| {
        Run::of(sandbox.command("date").env("TZ", zone).arg("-d").arg(format!("@{at}")).arg("+%F %T")).stdout
    };
    for zone in names.into_iter().chain(rules) {
        assert_eq!(started(&[("TZ", zone)]), date(zone), "{zone}");
    }
    // tzfile(5): a header with six counts, then one type of five hours and its name; both twice, then the rule.
    let counts = [0, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    let part = [&b"TZif2"[..], &[0; 15], &counts, &18_000_i32.to_be_bytes(), &[0, 0], b"XYZ\0"].concat();
    let zones = sandbox.path("zones");
    fs::create_dir(&zones).unwrap();
    fs::write(zones.join("own"), [&part[..], &part, b"\nXYZ-5\n"].concat()).unwrap();
    // Whoever opens that waits.
    mkfifo(&zones.join("fifo"), Mode::S_IRWXU).unwrap();
    for (zone, same) in [("own", "XYZ-5"), ("fifo", "UTC0")] {
        assert_eq!(started(&[("TZDIR", zones.to_str().unwrap()), ("TZ", zone)]), date(same), "{zone}");
    }
}

#[test]
fn last_ten_that_ended_are_listed_unless_all_are_asked_for() {
    let sandbox = Sandbox::new();
    let running = sandbox.job(["sleep", "60"]);
    // It was started long before the others, but it is the last that was heard of.
    let tracked = sandbox.job(["-t", "sleep", "61"]);
    let ended: Vec<Process> = (0..12).map(|number| sandbox.job(["true", &number.to_string()])).collect();
    eventually(|| ended.iter().all(Process::is_dead));
    tracked.signal(Signal::SIGKILL);
    end_of(&sandbox, &tracked);
    let commands = |options: &[&str]| {
        let mut commands: Vec<String> = list(&sandbox, options).into_iter().map(|line| line[6].clone()).collect();
        commands.sort();
        commands
    };
    let mut expected: Vec<String> = (3..12).map(|number| format!("true {number}")).collect();
    expected.extend(["sleep 61".to_owned(), "sleep 60".to_owned()]);
    expected.sort();
    assert_eq!(commands(&[]), expected);
    assert_eq!(commands(&["--all"]).len(), 14);
    assert!(running.is_alive());

    let mut terminal = Terminal::open(&sandbox);
    let (status, screen) = terminal.run("detach --list");
    assert_eq!(status, 0);
    assert!(screen.contains("detach: 3 more have ended: detach --list --all\r\n"), "{screen:?}");
    assert!(!terminal.run("detach --list --all").1.contains("more have ended"));
}

#[test]
fn only_the_records_that_are_shown_are_opened() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let job = sandbox.job(["true"]);
    eventually(|| job.is_dead());
    let (name, text) = only_record(&sandbox);
    for number in 0..300 {
        let copy = name.replacen('-', &format!("-{number}"), 1);
        let start_time = |name: &str| name.split('-').nth(1).unwrap().to_owned();
        let text = text.replace(
            &format!("\"start_time\":{}", start_time(&name)),
            &format!("\"start_time\":{}", start_time(&copy)),
        );
        fs::write(sandbox.state().join(copy), text).unwrap();
    }
    let run = sandbox.sh("strace -o ../trace -e trace=openat detach --list | wc -l; grep -c '.json' ../trace");
    assert_eq!(run.stdout, "10\n10\n");
}

/// Name and content of the only record.
fn only_record(sandbox: &Sandbox) -> (String, String) {
    let names = sandbox.files(".json");
    assert_eq!(names.len(), 1, "{names:?}");
    let text = fs::read_to_string(sandbox.state().join(&names[0])).unwrap();
    (names[0].clone(), text)
}

#[test]
fn table_fits_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "60", "", "a b", "naïve", "\x1b[2J", &"x".repeat(300)]);
    sandbox.job(["-N", "宽字符的名字也要对齐", "sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    for width in [30, 80, 120] {
        let (status, screen) = terminal.run(&format!("stty cols {width}; detach --list"));
        let lines: Vec<&str> = screen.lines().skip_while(|line| !line.contains("PID  NAME")).collect();
        assert_eq!((status, lines.len()), (0, 3), "{screen:?}");
        let columns = |line: &str| line.chars().map(|letter| if letter > '\u{2fff}' { 2 } else { 1 }).sum::<usize>();
        assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:?}");
        if width == 120 {
            let title = lines[0].find("COMMAND").unwrap();
            let command = lines[1].char_indices().nth(title).unwrap().0;
            assert!(lines[1][command..].starts_with(r"sleep 60 '' 'a b' naïve '\e[2J' xxx"), "{lines:?}");
            assert!(lines[1].ends_with("x…"), "{lines:?}");
        }
    }
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let sandbox = Sandbox::new();
    sandbox.job(["sleep", "60"]);
    let mut terminal = Terminal::open(&sandbox);
    let mut has_colour = |line: &str| terminal.run(line).1.contains("\u{1b}[");
    assert!(has_colour("env -u NO_COLOR detach --list"));
    assert!(!has_colour("env NO_COLOR=1 detach --list"));
    assert!(!has_colour("env -u NO_COLOR TERM=dumb detach --list"));
    assert!(!has_colour("env -u NO_COLOR detach --list | cat"));
}

#[test]
fn json_has_every_field_and_every_byte() {
    let sandbox = Sandbox::new();
    let job = sandbox.job([bytes(b"-t"), bytes(b"-N"), bytes(b"n\xff"), bytes(b"true"), bytes(b"a\xfe\n"), bytes(b"")]);
    end_of(&sandbox, &job);
    let run = sandbox.detach(["--list", "--json"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 1));
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["argv"], serde_json::json!(["true", [97, 254, 10], ""]));
    assert_eq!(json["name"], serde_json::json!([110, 255]));
    assert_eq!((&json["state"], &json["output_bytes"]), (&"exited".into(), &0.into()));
    assert_eq!(json["end"]["status"], 0);
    // All of the record, and what is known beside it.
    let mut record = sandbox.records().remove(0);
    for (name, value) in json.as_object().unwrap() {
        if name != "state" && name != "output_bytes" {
            assert_eq!(record.as_object_mut().unwrap().remove(name).as_ref(), Some(value));
        }
    }
    assert_eq!(record, serde_json::json!({}));
}

#[test]
fn job_of_another_boot_has_ended() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let (name, text) = only_record(&sandbox);
    let boot = name.splitn(3, '-').nth(2).unwrap().strip_suffix(".json").unwrap().to_owned();
    let other = boot.replace(|letter: char| letter.is_ascii_digit(), "5");
    fs::remove_file(sandbox.state().join(&name)).unwrap();
    fs::write(sandbox.state().join(name.replace(&boot, &other)), text.replace(&boot, &other)).unwrap();

    let pid = job.pid.to_string();
    assert_eq!(states(&list(&sandbox, &[])), [[&pid, "ended", "sleep 60"]]);
    let run = sandbox.detach(["-v", "--stop", &pid]);
    assert_eq!(run.stderr, format!("detach: 'sleep', PID {pid} has ended already\n"));
    assert!(job.is_alive());
}

#[test]
fn process_that_has_the_pid_of_an_ended_job_is_none() {
    if !is_root() || !is_installed("unshare") {
        return;
    }
    let sandbox = Sandbox::new();
    // In a PID namespace of its own, the next PID can be chosen. A tick of the clock lies between the two processes.
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
        detach -q --prune
        kill -0 $other && echo lives
        kill -9 $other
    "#;
    let mut command = sandbox.command("unshare");
    let run = Run::of(command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script]));
    let expected = "JOB\tended\n\
        detach: 'sleep', PID JOB has ended already\n\
        detach: 'sleep', PID JOB has ended already\n\
        detach: warning: 'sleep', PID JOB has ended, nobody knows how: start it with --track next time\n\
        lives\n";
    assert_eq!((run.status, run.stdout.as_str()), (0, expected), "{run:?}");
}

#[test]
fn record_that_cannot_be_read_is_named_and_hides_no_other() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let (_, text) = only_record(&sandbox);
    let path = |name: &str| sandbox.state().join(name);
    let boot = "0b1c2d3e-0000-0000-0000-000000000000";
    let names: Vec<String> = (1..=8).map(|number| format!("{number}-1-{boot}.json")).collect();
    fs::write(path(&names[0]), "").unwrap();
    fs::write(path(&names[1]), &text[..text.len() / 2]).unwrap();
    fs::write(path(&names[2]), b"\x00\xff\xfe").unwrap();
    fs::write(path(&names[3]), text.replace("\"version\":1", "\"version\":2")).unwrap();
    fs::write(path(&names[4]), &text).unwrap();
    mkfifo(&path(&names[5]), Mode::S_IRWXU).unwrap();
    fs::create_dir(path(&names[6])).unwrap();
    symlink("/etc/passwd", path(&names[7])).unwrap();
    fs::write(path("notes.json"), "{}").unwrap();

    let run = sandbox.detach(["--list"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 1));
    assert!(run.stdout.starts_with(&format!("{}\tsleep\trunning\t", job.pid)), "{run:?}");
    let reasons = [
        "it is cut short",
        "it is cut short",
        "it is not JSON",
        "it has version 2, and only version 1 is known here",
        "it is of another process",
        "it is not a regular file",
        "it is not a regular file",
        "it is a symbolic link",
    ];
    let warning =
        |path: PathBuf, reason: &str| format!("detach: warning: cannot read record '{}': {reason}", path.display());
    let mut expected: Vec<String> =
        names.iter().zip(reasons).map(|(name, reason)| warning(path(name), reason)).collect();
    expected.push(warning(path("notes.json"), "this is not the name of a record"));
    let mut warnings: Vec<&str> = run.stderr.lines().collect();
    expected.sort();
    warnings.sort_unstable();
    assert_eq!(warnings, expected);
    // They are in nobody's way, and nobody's to remove.
    assert_eq!(sandbox.detach(["-q", "--prune"]).status, 0);
    assert!(names.iter().all(|name| path(name).symlink_metadata().is_ok()));
    assert_eq!(sandbox.detach(["-q", "--stop", "sleep"]).status, 0);
    eventually(|| job.is_dead());
}

#[test]
fn nothing_to_list_is_no_error() {
    let sandbox = Sandbox::new();
    for options in [&["--list"][..], &["--list", "--all", "--json"], &["--prune"]] {
        let run = sandbox.detach(options);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{options:?}");
    }
    // Looking makes no directory.
    assert!(!sandbox.state().exists());
    let run = Run::of(sandbox.command(DETACH).env_remove("HOME").arg("--list"));
    assert_eq!(run.status, 125);
}

#[test]
fn much_room_taken_by_ended_jobs_is_told() {
    let sandbox = Sandbox::new();
    let job = sandbox.job(["sleep", "60"]);
    let log = sandbox.state().join(&sandbox.files(".log")[0]);
    let grow = |bytes| fs::File::options().write(true).open(&log).unwrap().set_len(bytes).unwrap();
    let mut terminal = Terminal::open(&sandbox);
    let line = "detach: the logs of jobs that have ended take 100 MiB: detach --prune=7d keeps the last week\r\n";
    let limit = 100 * 1024 * 1024;
    grow(limit + 1);
    assert!(!terminal.run("detach --list").1.contains(line));
    job.signal(Signal::SIGKILL);
    eventually(|| job.is_dead());
    assert!(terminal.run("detach --list").1.contains(line));
    grow(limit);
    assert!(!terminal.run("detach --list").1.contains(line));
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
                    let run = sandbox.detach(["-P", "--json", "sh", "-c", "echo $0", &number]);
                    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
                    let (pid, json) = run.stdout.split_once('\n').unwrap();
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
        assert_eq!(record["argv"], serde_json::json!(["sh", "-c", "echo $0", number.to_string()]));
        let log = record["stdout"]["log"].as_str().unwrap();
        assert_eq!(fs::read_to_string(log).unwrap(), format!("{number}\n"));
    }
    assert_eq!((sandbox.files(".log").len(), sandbox.files(".tmp").len()), (1000, 0));
    assert_eq!(list(&sandbox, &["--all"]).len(), 1000);
}

#[test]
fn killed_detach_leaves_a_job_that_is_recorded_or_none() {
    if !is_installed("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    for options in ["", "-t --full"] {
        assert_eq!(sandbox.sh(&format!("strace -o ../trace detach {options} -P true")).status, 0);
        let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
        let calls: Vec<&str> = trace.lines().filter_map(|line| Some(line.split_once('(')?.0)).collect();
        assert!(calls.len() > 40, "{trace}");
        let number = |place: usize| calls[..=place].iter().filter(|call| **call == calls[place]).count();
        let last = |place: usize| !calls[place + 1..].contains(&calls[place]);
        // Of many of a kind, the first and the last.
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
            let lines = list(&sandbox, &[]);
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

/// The processes of the sandbox when each of them is what it is to become: none, or so many for each record, one of them a sleep.
fn await_settled(sandbox: &Sandbox, with_each_job: usize) -> Vec<Process> {
    let is_settled = |process: &Process| process.runs("sleep") || process.runs(TRACKER);
    await_result(|| {
        let processes = sandbox.processes();
        let is_complete = processes.len() == with_each_job * sandbox.files(".json").len();
        if is_complete && processes.iter().all(is_settled) { Ok(processes) } else { Err(format!("{processes:?}")) }
    })
}
