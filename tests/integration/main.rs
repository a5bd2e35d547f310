//! The integration tests: one binary, so that all share one `support`.
//!
//! Each module holds the tests of one side of the program; `support` holds what they stand on. A test looks at the
//! kernel, never sleeps, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checking;
mod completions;
mod daemon;
mod documents;
mod failures;
mod listing;
mod output;
mod peers;
mod remote;
mod state;
mod stopping;
mod streams;
mod support;
mod survival;
mod tracking;
mod watching;
