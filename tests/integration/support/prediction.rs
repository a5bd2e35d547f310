//! What `detach --check` predicts for a process.

use serde_json::Value;

use super::process::Process;
use super::sandbox::Sandbox;
use super::wait::await_result;

/// What is predicted for the terminal closing and for the shell's exit. The exit status must agree.
#[track_caller]
pub fn predict(sandbox: &Sandbox, process: &Process) -> (String, String) {
    let run = sandbox.detach(["--check", "--json", &process.pid.to_string()]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let word = |name: &str| json["verdict"][name].as_str().unwrap().to_owned();
    let prediction = (word("terminal_closing"), word("shell_exit"));
    let survives = prediction == ("survives".into(), "survives".into());
    assert_eq!((json["verdict"]["survives"].as_bool(), run.status), (Some(survives), i32::from(!survives)), "{json}");
    prediction
}

/// Waits until this is predicted for the terminal closing and for the shell's exit. Some launchers return before the
/// program has set itself up, and a shell may still block signals while the program it has started runs already.
#[track_caller]
pub fn await_prediction(sandbox: &Sandbox, process: &Process, [closing, exit]: [&str; 2], what: &str) {
    await_result(|| {
        let predicted = predict(sandbox, process);
        let is_expected = (predicted.0.as_str(), predicted.1.as_str()) == (closing, exit);
        if is_expected { Ok(()) } else { Err(format!("{what}: {predicted:?}, not {:?}", (closing, exit))) }
    });
}
