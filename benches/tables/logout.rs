//! What survives a logout by ssh, beside a real logind: `+` lives, `-` has ended; first where the shell exits, then
//! where the connection is lost.

use crate::support::logout::{Event, Fates, LAUNCHERS, observe};

pub fn print() {
    let (Some(keeps), Some(kills)) = (observe(false), observe(true)) else { return };
    println!("| started by | KillUserProcesses=no | and lingering | KillUserProcesses=yes | and lingering |");
    println!("|---|---|---|---|---|");
    for launcher in LAUNCHERS {
        let cell = |fates: &Fates, lingers| {
            let mark = |event| if fates[&(launcher, event, lingers)].lives { "+" } else { "-" };
            [Event::Exit, Event::Drop].map(mark).concat()
        };
        let cells = [cell(&keeps, false), cell(&keeps, true), cell(&kills, false), cell(&kills, true)];
        println!("| `{launcher}` | {} |", cells.join(" | "));
    }
}
