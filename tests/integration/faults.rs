//! A start in which any system call fails, or any process is killed at one: either the command runs and is recorded, or
//! nothing is left.
//!
//! `cargo bench --bench faults -- calls` tries every fault at every place; here, each place gets one of them in turn.

use crate::support::faults::{ERRORS, MODES, Range};
use crate::support::tracer::Act;

#[test]
fn start_in_which_a_system_call_fails_is_whole_or_leaves_nothing() {
    let shortfalls: Vec<String> = std::thread::scope(|scope| {
        let sweep = |number: usize| {
            let mut range = Range::new(MODES[number]);
            let acts: Vec<Act> = ERRORS.map(Act::Fail).into_iter().chain([Act::Kill]).collect();
            for place in 0..range.count_calls() {
                range.try_call(place, acts[(place + number) % acts.len()]);
            }
            assert!(range.tally.started > 0 && range.tally.refused > 0, "{}", MODES[number].0);
            range.tally.shortfalls
        };
        let threads: Vec<_> = (0..MODES.len()).map(|number| scope.spawn(move || sweep(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(shortfalls.is_empty(), "{} fell short:\n{}", shortfalls.len(), shortfalls.join("\n"));
}
