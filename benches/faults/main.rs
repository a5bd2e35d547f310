//! Makes starts fail in every way, and prints what was tried and what went wrong.
//!
//! `cargo bench --bench faults` does all of it, which takes long; `-- calls` fails and kills at each system call, `--
//! instructions` kills each new process before each instruction, `-- moments` kills the first one at random moments. A
//! number after the word, such as `-- instructions 10`, tries every tenth place, or makes a tenth of the starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// Only a part of it is needed.
#[allow(unused)]
#[macro_use]
#[path = "../../tests/integration/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::thread;

#[cfg(target_arch = "x86_64")]
use support::faults::{ERRORS, MODES, Range, Tally};
use support::killing;
#[cfg(target_arch = "x86_64")]
use support::tracer::Act;

/// How many starts are made in each mode whose first process is killed at a random moment, and how many at once.
const MOMENTS: u64 = 4000;
const AT_ONCE: u64 = 100;

fn main() -> ExitCode {
    // cargo adds options of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let part = words.iter().find_map(|word| word.parse::<u64>().ok()).unwrap_or(1).max(1);
    let asked: Vec<&String> = words.iter().filter(|word| word.parse::<u64>().is_err()).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|word| *word == name);
    let mut shortfalls = 0;
    #[cfg(target_arch = "x86_64")]
    for (name, sweep) in [("calls", try_calls as fn(usize, u64) -> Tally), ("instructions", try_instructions)] {
        if is_asked(name) {
            println!("\n{name}:\n");
            shortfalls += print_all(|number| sweep(number, part));
        }
    }
    if is_asked("moments") {
        println!("\nmoments:\n");
        shortfalls += kill_at_moments(MOMENTS / part);
    }
    ExitCode::from(u8::from(shortfalls > 0))
}

/// Every error, and SIGKILL, at every `part`th system call.
#[cfg(target_arch = "x86_64")]
fn try_calls(mode: usize, part: u64) -> Tally {
    let mut range = Range::new(MODES[mode]);
    for place in (0..range.count_calls()).step_by(part.try_into().unwrap()) {
        for errno in ERRORS {
            range.try_call(place, Act::Fail(errno));
        }
        range.try_call(place, Act::Kill);
    }
    range.tally
}

/// SIGKILL before every `part`th instruction of each new process, when it is made for the first time.
#[cfg(target_arch = "x86_64")]
fn try_instructions(mode: usize, part: u64) -> Tally {
    let mut range = Range::new(MODES[mode]);
    for process in 1..=MODES[mode].2 {
        for address in range.list_instructions(process).into_iter().step_by(part.try_into().unwrap()) {
            range.try_instruction(process, address);
        }
    }
    range.tally
}

/// Tries all modes, two at a time, and prints a line for each. Returns how many starts fell short.
#[cfg(target_arch = "x86_64")]
fn print_all(sweep: impl Fn(usize) -> Tally + Sync) -> usize {
    println!(
        "{:12} {:>7} {:>8} {:>8} {:>16} {:>19} {:>11}",
        "mode", "tried", "started", "refused", "launcher killed", "killed before exec", "fell short"
    );
    let numbers: Vec<usize> = (0..MODES.len()).collect();
    let mut shortfalls = Vec::new();
    for pair in numbers.chunks(2) {
        let sweep = &sweep;
        let tallies = thread::scope(|scope| {
            let threads: Vec<_> = pair.iter().map(|number| scope.spawn(move || sweep(*number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for (number, tally) in pair.iter().zip(tallies) {
            let Tally { tried, started, refused, launcher_killed, killed_before_exec, .. } = tally;
            let (mode, count) = (MODES[*number].0, tally.shortfalls.len());
            println!(
                "{mode:12} {tried:7} {started:8} {refused:8} {launcher_killed:16} {killed_before_exec:19} {count:11}"
            );
            shortfalls.extend(tally.shortfalls);
        }
    }
    for shortfall in &shortfalls {
        println!("{shortfall}");
    }
    shortfalls.len()
}

/// SIGKILL to the first process of each start, up to 0.7 ms after it was made. Returns how many starts fell short.
fn kill_at_moments(starts: u64) -> usize {
    let mut shortfalls = Vec::new();
    println!("{:12} {:>7} {:>8} {:>8} {:>11}", "mode", "tried", "started", "refused", "fell short");
    for mode in killing::MODES {
        let (mut started, mut refused, before) = (0, 0, shortfalls.len());
        for first in (0..starts).step_by(AT_ONCE.try_into().unwrap()) {
            let tally = killing::kill_first_processes(mode, first..starts.min(first + AT_ONCE));
            (started, refused) = (started + tally.started, refused + tally.refused);
            shortfalls.extend(tally.shortfalls);
        }
        let (name, short) = (mode.join(" "), shortfalls.len() - before);
        let name = if name.is_empty() { "default" } else { &name };
        println!("{name:12} {starts:7} {started:8} {refused:8} {short:11}");
    }
    for shortfall in &shortfalls {
        println!("{shortfall}");
    }
    shortfalls.len()
}
