//! Prints the tables of the README that compare detach with its peers: survival, logout, peers and daemon.
//!
//! `cargo bench --bench tables` prints all, `cargo bench --bench tables -- peers` one of them. What is measured is the
//! same as in the tests, with which this program shares `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// The tables need only a part of it.
#[allow(unused)]
#[macro_use]
#[path = "../../tests/integration/support/mod.rs"]
mod support;

mod daemon;
mod logout;
mod peers;
mod survival;

const TABLES: [(&str, fn()); 4] =
    [("survival", survival::print), ("logout", logout::print), ("peers", peers::print), ("daemon", daemon::print)];

fn main() {
    // cargo adds options of its own.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, print) in TABLES {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            println!("\n{name}:\n");
            print();
        }
    }
}
