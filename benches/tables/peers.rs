//! How detach and its peers differ beside survival.

use crate::support::peers::{Facts, WAYS, measure};

pub fn print() {
    requires!(daemonize);
    let yes = |fact: bool| if fact { "yes" } else { "no" };
    let facts: Vec<Facts> = WAYS.iter().map(|(_, line)| measure(line)).collect();
    let row = |title: &str, cell: &dyn Fn(&Facts) -> String| {
        let cells: Vec<String> = facts.iter().map(cell).collect();
        println!("| {title} | {} |", cells.join(" | "));
    };
    println!("| | {} |", WAYS.map(|(title, _)| format!("`{title}`")).join(" | "));
    println!("|---|{}", "---|".repeat(WAYS.len()));
    row("exit status: not found", &|facts| facts.statuses[0].clone());
    row("exit status: not executable", &|facts| facts.statuses[1].clone());
    row("exit status: a directory", &|facts| facts.statuses[2].clone());
    row("exit status: bad `#!` interpreter", &|facts| facts.statuses[3].clone());
    row("a session of its own", &|facts| yes(facts.leads_session).into());
    row("still has the terminal open", &|facts| yes(facts.keeps_terminal).into());
    row("`out=$(…)` returns while it runs", &|facts| yes(facts.returns_from_substitution).into());
    row("keeps a lock inherited on descriptor 9", &|facts| yes(facts.keeps_lock).into());
    row("inherits a script's ignored SIGINT", &|facts| yes(facts.passes_ignored_interrupt_on).into());
}
