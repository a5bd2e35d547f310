//! Draws the picture of the README: a session in two terminals, as `benches/session-light.svg` and `-dark.svg`.
//!
//! `cargo bench --bench session` types each line into a real shell on a pseudo-terminal, waits for the next prompt, and
//! draws what has appeared, in its colors. `screen` reads what the terminal was sent, `picture` draws it. Two runs
//! differ in PIDs and times alone. The sandbox is that of the tests, with which this program shares `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// The picture needs only a part of it.
#[allow(unused)]
#[macro_use]
#[path = "../../tests/integration/support/mod.rs"]
mod support;

mod picture;
mod screen;

use std::fs;

use picture::{DARK, LIGHT};
use screen::Line;
use support::{Sandbox, Terminal, are_met, eventually};

const TRAINING: &str = "\
import time
for epoch in 1, 2, 3:
    time.sleep(1)
    print(f'epoch {epoch}: loss {1 / epoch:.2f}', flush=True)
";

const START: &[&str] =
    &["detach -t python3 train.py", "detach -o server.log python3 -m http.server", "detach make -j8", "exit"];
const LATER: &[&str] =
    &["detach --list", "detach --log train.py", "detach --join train.py && echo deploy", "detach --stop http.server"];

fn main() {
    assert!(are_met(&["dash", "make", "python3"]), "the session needs these programs");
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("home/train.py"), TRAINING).unwrap();
    let start = record(&sandbox, START);
    sandbox.detach(["--join", "train.py"]).exits(0);
    let later = record(&sandbox, LATER);
    assert!(later.iter().flatten().any(|run| run.text == "running"), "http.server has ended; is its port taken?");
    let windows = [("In a terminal:", start), ("Later, in another terminal:", later)];
    for (name, palette) in [("light", LIGHT), ("dark", DARK)] {
        let file = format!("{}/benches/session-{name}.svg", env!("CARGO_MANIFEST_DIR"));
        fs::write(&file, picture::draw(&windows, &palette)).unwrap();
    }
    println!("The pictures are in benches/session-light.svg and benches/session-dark.svg, which each run overwrites.");
}

/// Types these lines in a terminal of their own, and returns what has appeared in it.
fn record(sandbox: &Sandbox, lines: &[&str]) -> Vec<Line> {
    let home = sandbox.path("home");
    // A shell without line editing: nothing moves the cursor.
    let shell = ["env", "-C", home.to_str().unwrap(), "-u", "NO_COLOR", "PS1=$ ", "dash", "-i"];
    let mut terminal = Terminal::open_with(sandbox, &shell);
    terminal.wait_for("$ ");
    for (count, line) in lines.iter().enumerate() {
        terminal.type_line(line);
        eventually(|| terminal.is_shell_dead() || terminal.screen().matches("\n$ ").count() > count);
    }
    screen::read(&terminal.screen())
}
