//! `--pid` may be killed with SIGKILL at any moment: the job goes on as before, and can be let go of afterwards.
//!
//! A debug build kills itself at the Nth of the places where it matters (src/sys/mishap.rs): between any two calls that
//! change something outside of detach. The last place has been passed when detach succeeds.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::target::Target;
use crate::support::{DETACH, Process, Run, Sandbox, Terminal, eventually};

/// There are more places than this.
const MANY: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopped,
}

/// Something to let go of, on a terminal of its own.
struct Scene {
    sandbox: Sandbox,
    terminal: Terminal,
}

impl Scene {
    fn open() -> Self {
        let sandbox = Sandbox::new();
        let terminal = Terminal::open_bash(&sandbox);
        Self { sandbox, terminal }
    }
}

/// A program, and how to see that it works.
struct Kind {
    process: Process,
    /// Waits until it has done something more.
    await_work: Box<dyn Fn()>,
}

fn start_target(sandbox: &Sandbox, terminal: &mut Terminal, kind: &str) -> Kind {
    let target = Target::start(sandbox, terminal, kind);
    Kind { process: target.process.clone(), await_work: Box::new(move || target.await_blocks(2)) }
}

const PYTHON: &str = "import threading, time
beats = [0]
def beat():
    while True:
        time.sleep(0.002)
        beats[0] += 1
for _ in range(3): threading.Thread(target=beat, daemon=True).start()
while True:
    time.sleep(0.002)
    open('beats.new', 'w').write(str(beats[0]))
    import os; os.rename('beats.new', 'beats')
";

fn start_python(sandbox: &Sandbox, terminal: &mut Terminal) -> Kind {
    sandbox.write("beats.py", PYTHON);
    sandbox.remove("beats");
    let pid_file = sandbox.work("beats.pid");
    let _ = fs::remove_file(&pid_file);
    let process = terminal.start(
        &format!("\"$(python3 -c 'import sys; print(sys.executable)')\" beats.py & echo $! > {}", pid_file.display()),
        &pid_file,
    );
    let file = sandbox.work("beats");
    let beats = move || fs::read_to_string(&file).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    eventually(|| beats() > 0);
    let await_work = Box::new(move || {
        let before = beats();
        eventually(|| beats() > before + 6);
    });
    Kind { process, await_work }
}

/// Kills detach at every `step`th place, from the `first` on.
fn kill_at_each_place(start: &dyn Fn(&Sandbox, &mut Terminal) -> Kind, state: State, first: usize, step: usize) {
    let mut scene = Scene::open();
    let mut place = first;
    while kill_at(&mut scene, start, state, place) {
        place += step;
    }
    assert!(place > MANY, "{place}");
    // Whether it was killed before it had recorded the job or after.
    assert_eq!(scene.sandbox.records().len(), (place - first) / step + 1);
    let pruned = scene.sandbox.detach(["-v", "--prune", "0"]);
    assert_eq!(scene.sandbox.logs(), [""; 0], "{pruned:?}, {:?}", scene.sandbox.records());
}

/// Returns whether detach was killed there, and not done before.
fn kill_at(scene: &mut Scene, start: &dyn Fn(&Sandbox, &mut Terminal) -> Kind, state: State, place: usize) -> bool {
    let what = format!("{state:?}, place {place}");
    let Kind { process, await_work } = start(&scene.sandbox, &mut scene.terminal);
    if state == State::Stopped {
        process.signal(Signal::SIGSTOP);
        eventually(|| process.is_stopped());
    }
    let read_signals = || ["SigBlk", "SigCgt"].map(|name| process.status(name));
    let signals = read_signals();
    let pid = process.pid.to_string();
    let mut command = scene.sandbox.command(DETACH);
    let run = Run::of(command.args(["--pid", &pid]).env("DETACH_KILL_AT", place.to_string()));
    let is_killed = run.status != 0;
    assert_eq!((run.status, run.stderr.as_str()), (if is_killed { 137 } else { 0 }, ""), "{what}: {run:?}");
    // The guardian has ended as well, since it holds stdout. It has put everything back.
    assert_eq!(process.status("TracerPid"), "0", "{what}");
    if state == State::Stopped {
        // Only the last that detach does continues it. A thread that was let go of needs a moment to stop again.
        eventually(|| process.is_stopped() || place > MANY);
        process.signal(Signal::SIGCONT);
    }
    await_work();
    assert_eq!(read_signals(), signals, "{what}");
    // Nothing is in its way afterwards.
    scene.sandbox.detach(["--pid", &pid]).succeeds_silently();
    await_work();
    assert_eq!(process.terminal(), 0, "{what}");
    assert!(process.signals("SigIgn").contains(&1), "{what}");
    assert!(!process.descriptors().values().any(|path| path.starts_with("/dev/pts")), "{what}");
    process.kill();
    is_killed
}

#[test]
fn program_without_system_calls_runs_on_when_detach_is_killed_at_any_place() {
    requires!(cc, bash);
    kill_at_each_place(&|sandbox, terminal| start_target(sandbox, terminal, "spin"), State::Running, 1, 1);
}

#[test]
fn program_without_system_calls_stays_stopped_when_detach_is_killed() {
    requires!(cc, bash);
    kill_at_each_place(&|sandbox, terminal| start_target(sandbox, terminal, "spin"), State::Stopped, 1, 5);
}

#[test]
fn program_with_threads_runs_on_when_detach_is_killed() {
    requires!(cc, bash);
    kill_at_each_place(&|sandbox, terminal| start_target(sandbox, terminal, "threads"), State::Running, 1, 5);
}

#[test]
fn program_with_threads_stays_stopped_when_detach_is_killed() {
    requires!(cc, bash);
    kill_at_each_place(&|sandbox, terminal| start_target(sandbox, terminal, "threads"), State::Stopped, 2, 5);
}

#[test]
fn python_runs_on_when_detach_is_killed() {
    requires!(python3, bash);
    kill_at_each_place(&start_python, State::Running, 2, 8);
}

#[test]
fn python_stays_stopped_when_detach_is_killed() {
    requires!(python3, bash);
    kill_at_each_place(&start_python, State::Stopped, 1, 9);
}
