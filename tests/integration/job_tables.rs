//! `--check`, asked through the function that `--init` prints: the shell says which jobs it has, and when it hangs them
//! up. So the answer is yes or no where it is `perhaps` otherwise.
//!
//! A test asks for a prediction first. Then it really closes the terminal, or ends the shell.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    DETACH, Event, Process, QUIET, Run, Scene, assert_came_true, await_prediction, await_result, eventually,
};

/// A shell: its name, its command line, and what is typed before anything is started.
struct Shell {
    name: &'static str,
    program: &'static [&'static str],
    setup: &'static str,
}

const BASH: Shell = Shell { name: "bash", program: &["bash", "--norc", "--noprofile", "-i"], setup: ":" };
const BASH_HUPONEXIT: Shell =
    Shell { name: "bash", program: &["bash", "--noprofile", "--login", "-i"], setup: "shopt -s huponexit" };
const ZSH: Shell = Shell { name: "zsh", program: &["zsh", "-f", "-i"], setup: ":" };
const ZSH_NO_HUP: Shell = Shell { name: "zsh", program: &["zsh", "-f", "-i"], setup: "setopt no_hup" };
const FISH: Shell = Shell { name: "fish", program: &["fish", "--no-config", "-i"], setup: ":" };

/// A way to start a program in the background, and the predictions for the terminal closing and the shell's exit.
type Way = (&'static str, String, [&'static str; 2]);

fn plain(predictions: [&'static str; 2]) -> Way {
    ("&", format!("{{}} {QUIET} &"), predictions)
}

/// `how` stands after the program.
fn disowned(how: &str) -> Way {
    let name = if how == "&!" { "not in the table" } else { "disowned" };
    (name, format!("{{}} {QUIET} {how}"), ["survives", "survives"])
}

impl Scene {
    fn with_function(shell: &Shell) -> Self {
        let mut scene = Self::open(shell.program);
        scene.load_function(shell.name);
        let file = scene.sandbox.path("set");
        let is_set = || if file.exists() { Ok(()) } else { Err("not set up".to_owned()) };
        scene.terminal.type_until(&format!("{}; echo > {}", shell.setup, file.display()), is_set);
        scene
    }

    /// What is predicted if the shell asks, by this command line.
    #[track_caller]
    fn ask(&mut self, command: &str) -> [String; 2] {
        let file = self.sandbox.path("answer");
        let _ = fs::remove_file(&file);
        let line = format!("{command} > {0}.new; mv {0}.new {0}", file.display());
        let answer = self.terminal.type_until(&line, || fs::read_to_string(&file).map_err(|error| error.to_string()));
        let json: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        ["terminal_closing", "shell_exit"].map(|event| json["verdict"][event].as_str().unwrap().to_owned())
    }

    /// The program that has asked last is still the terminal's foreground job for a moment: a zsh that is hung up then
    /// may exit without a signal to its jobs.
    #[track_caller]
    fn let_happen_at_prompt(&mut self, event: Event) {
        self.terminal.wait_for_prompt();
        self.let_happen(event);
    }

    /// Waits until this is predicted: a shell may still block signals while the program that it has started runs.
    #[track_caller]
    fn await_answer(&mut self, command: &str, expected: [&str; 2], what: &str) {
        await_result(|| {
            let answer = self.ask(command);
            if answer == expected { Ok(()) } else { Err(format!("{what}: {answer:?}, not {expected:?}")) }
        });
    }
}

fn ask_by_pid(process: &Process) -> String {
    format!("detach --check --json {}", process.pid)
}

#[track_caller]
fn assert_predictions_come_true(shell: &Shell, ways: &[Way]) {
    for event in [Event::Close, Event::Exit] {
        let mut scene = Scene::with_function(shell);
        let mut predicted = Vec::new();
        for (name, line, expected) in ways {
            let process = scene.start(name, line);
            let what = format!("{} {} / {name}", shell.name, shell.setup);
            scene.await_answer(&ask_by_pid(&process), *expected, &what);
            predicted.push((what, process, expected));
        }
        scene.let_happen_at_prompt(event);
        for (what, process, [closing, exit]) in &predicted {
            let outcome = if event == Event::Close { closing } else { exit };
            assert_came_true(outcome, process, &format!("{what} / {event:?}"));
        }
    }
}

#[test]
fn bash_tells_which_jobs_it_has() {
    requires!(bash, perl);
    let ignoring = format!("(trap '' HUP; exec {{}}) {QUIET} &");
    let ways = [
        plain(["ends", "survives"]),
        disowned("& disown"),
        ("ignoring", ignoring, ["survives", "survives"]),
        ("on the terminal", "{} & disown".into(), ["perhaps", "perhaps"]),
    ];
    assert_predictions_come_true(&BASH, &ways);
}

#[test]
fn bash_tells_whether_it_hangs_up_jobs_on_exit() {
    requires!(bash, perl);
    assert_predictions_come_true(&BASH_HUPONEXIT, &[plain(["ends", "ends"]), disowned("& disown")]);
}

#[test]
fn bash_does_not_know_which_jobs_disown_has_marked() {
    requires!(bash, perl);
    let mut scene = Scene::with_function(&BASH_HUPONEXIT);
    let plain = scene.start("plain", &format!("{{}} {QUIET} &"));
    scene.await_answer(&ask_by_pid(&plain), ["ends", "ends"], "before");
    let marked = scene.start("marked", &format!("{{}} {QUIET} & disown -h"));
    for job in [&plain, &marked] {
        scene.await_answer(&ask_by_pid(job), ["perhaps", "perhaps"], "after disown -h");
    }
    scene.let_happen_at_prompt(Event::Close);
    assert_came_true("ends", &plain, "plain");
    assert_came_true("survives", &marked, "marked");
}

#[test]
fn zsh_tells_which_jobs_it_has() {
    requires!(zsh, perl);
    assert_predictions_come_true(&ZSH, &[plain(["ends", "ends"]), disowned("& disown"), disowned("&!")]);
}

#[test]
fn zsh_tells_that_it_hangs_up_no_job() {
    requires!(zsh, perl);
    assert_predictions_come_true(&ZSH_NO_HUP, &[plain(["survives", "survives"]), disowned("&!")]);
}

#[test]
fn fish_tells_which_jobs_it_has() {
    requires!(fish, perl);
    assert_predictions_come_true(&FISH, &[plain(["ends", "ends"]), disowned("& disown")]);
}

#[test]
fn bash_does_not_terminate_a_stopped_job_that_is_disowned() {
    requires!(bash, perl);
    let mut scene = Scene::with_function(&BASH);
    let process = scene.start("stopped", &format!("(trap '' HUP; exec {{}} {QUIET})"));
    eventually(|| scene.terminal.foreground() == process.group());
    scene.terminal.press("\x1a");
    eventually(|| process.is_stopped() && scene.terminal.foreground() != process.group());
    scene.await_answer(&ask_by_pid(&process), ["ends", "ends"], "stopped");
    let ask = format!("disown %% 2> /dev/null; {}", ask_by_pid(&process));
    scene.await_answer(&ask, ["survives", "survives"], "stopped and disowned");
    scene.let_happen_at_prompt(Event::Exit);
    process.signal(Signal::SIGCONT);
    assert_came_true("survives", &process, "stopped and disowned");
}

#[test]
fn jobs_are_named_as_the_shell_names_them() {
    requires!(bash, zsh, fish, perl);
    for shell in [&BASH, &ZSH, &FISH] {
        let mut scene = Scene::with_function(shell);
        let first = scene.start("first", &format!("{{}} {QUIET} &"));
        let second = scene.start("second", &format!("perl -e 'exec @ARGV' {{}} {QUIET} &"));
        for (job, expected) in [("%1", &first), ("%%", &second), ("%-", &first), ("%perl", &second)] {
            let file = scene.sandbox.path("named");
            let _ = fs::remove_file(&file);
            let line = format!("detach --check {job} > {0}.new; mv {0}.new {0}", file.display());
            let text = scene.terminal.type_until(&line, || fs::read_to_string(&file).map_err(|it| it.to_string()));
            let named = format!("(PID {})", expected.pid);
            assert!(text.lines().next().unwrap_or_default().ends_with(&named), "{} {job}: {text}", shell.name);
        }
    }
}

#[test]
fn what_a_shell_says_is_for_its_own_jobs_and_a_single_call() {
    requires!(bash, perl);
    let mut scene = Scene::with_function(&BASH);
    let job = scene.start("job", &format!("{{}} {QUIET} & disown"));
    scene.await_answer(&ask_by_pid(&job), ["survives", "survives"], "asked by the shell");
    // The program alone learns nothing, and neither does one that the shell has not called.
    scene.await_answer(&format!("command {}", ask_by_pid(&job)), ["perhaps", "perhaps"], "not asked by the function");
    await_prediction(&scene.sandbox, &job, ["perhaps", "perhaps"], "asked elsewhere");
    let said = format!("{} hangup exit exact", scene.terminal.shell.pid);
    let mut command = scene.sandbox.command(DETACH);
    let run = Run::of(command.args(["--check", &job.pid.to_string()]).env("DETACH_SHELL", said));
    assert!(run.exits(1).stdout.contains("might not survive shell exit or terminal closing"));
    let (_, screen) = scene.terminal.run("echo \"<${DETACH_SHELL-nothing}>\"");
    assert!(screen.contains("<nothing>"), "{screen}");
}
