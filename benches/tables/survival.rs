//! Which programs survive what, in each shell and by each way to start them.
//!
//! A `+` is a program that survived, a `-` one that died, an `s` one that was stopped, in the order of `PROGRAMS`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use crate::support::survival::{DETACH, EVENTS, Fate, Launcher, PLAIN, PROGRAMS, SHELLS, Shell, observe};

const DISOWN: Launcher = "COMMAND & disown";

const LAUNCHERS: [Launcher; 6] = [DETACH, PLAIN, "nohup COMMAND &", "setsid -f COMMAND", DISOWN, "daemonize COMMAND"];

/// Cells by shell, launcher and event.
type Table = BTreeMap<(&'static str, Launcher, &'static str), String>;

pub fn print() {
    requires!(perl, daemonize, zsh, fish, dash, ksh93, mksh, tcsh, busybox);
    let table = Mutex::new(Table::new());
    let cells = SHELLS.iter().flat_map(|shell| LAUNCHERS.map(|launcher| (shell, launcher)));
    let next = Mutex::new(cells.filter(|(shell, launcher)| exists(shell, launcher)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((shell, launcher)) = next.lock().unwrap().next() else { return };
                    for event in EVENTS {
                        let fates = observe(shell, event, &[launcher]);
                        let letter = |fate: &Fate| match fate {
                            Fate::Alive => '+',
                            Fate::Stopped => 's',
                            Fate::Dead => '-',
                        };
                        let cell = PROGRAMS.iter().filter_map(|program| fates.get(&(launcher, *program)).map(letter));
                        table.lock().unwrap().insert((shell.name, launcher, event.title()), cell.collect());
                    }
                }
            });
        }
    });
    println!("{}", render(&table.into_inner().unwrap()));
}

/// Whether the shell has such a way to start a program.
fn exists(shell: &Shell, launcher: Launcher) -> bool {
    launcher != DISOWN || ["bash", "bash huponexit", "zsh", "fish", "ksh93"].contains(&shell.name)
}

fn render(table: &Table) -> String {
    let mut text = String::from("| shell | started by |");
    for event in EVENTS {
        let _ = write!(text, " {} |", event.title());
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(EVENTS.len()));
    for shell in &SHELLS {
        for launcher in LAUNCHERS {
            let words: Vec<&str> = launcher.split(' ').filter(|word| *word != "COMMAND").collect();
            let _ = write!(text, "\n| {} | `{}` |", shell.name, words.join(" "));
            for event in EVENTS {
                let cell = table.get(&(shell.name, launcher, event.title())).map_or("", String::as_str);
                let _ = write!(text, " {cell} |");
            }
        }
    }
    text
}
