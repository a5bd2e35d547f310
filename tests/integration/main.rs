//! The integration tests: one binary, so that all share one `support`.
//!
//! Each module tests one side of the program, `support` is what they are built on. A test looks at the kernel, never
//! sleeps, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

mod borrowing;
mod checking;
mod completions;
mod daemon;
mod documents;
mod failures;
#[cfg(target_arch = "x86_64")]
mod faults;
mod functions;
mod guarding;
mod hardening;
mod hints;
mod job_tables;
mod joining;
mod journal;
mod letting_go;
mod listing;
mod logout;
mod names;
mod notification;
mod output;
mod packaging;
mod peers;
mod pidfile;
mod pruning;
mod refusals;
mod remote;
mod rescued_jobs;
mod scope;
mod sessions;
mod standard_input;
mod state;
mod stopping;
mod streams;
mod survival;
mod tracking;
mod visibility;
mod watching;
