//! Waiting without sleep: a condition is tried until it holds or a limit has passed.
//!
//! The limit is longer than anything takes on a loaded machine. When it passes, the test fails and reports what was
//! last seen.

use std::time::{Duration, Instant};

pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    await_result(|| if condition() { Ok(()) } else { Err(String::from("the condition does not hold")) });
}

/// Tries `attempt` until it returns a result. Its last error is shown when it never does.
#[track_caller]
pub fn await_result<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Ok(result) => return result,
            Err(last_seen) => assert!(Instant::now() < end, "did not happen within {LIMIT:?}: {last_seen}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
