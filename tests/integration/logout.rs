//! Logouts: `--check` is asked first, then users of a real logind log out or lose their connection, then what lives is
//! compared.

use crate::support::logout::{Case, Event, Fates, LAUNCHERS, observe};

/// Whether it lives in all four cases: exit and a lost connection, without and with lingering.
#[track_caller]
fn assert_lives(fates: &Fates, expected: [(&str, [bool; 4]); 5]) {
    for (launcher, lives) in expected {
        let cases = [(Event::Exit, false), (Event::Drop, false), (Event::Exit, true), (Event::Drop, true)];
        let launcher = LAUNCHERS.into_iter().find(|it| *it == launcher).unwrap();
        assert_eq!(
            cases.map(|(event, lingers)| fates[&(launcher, event, lingers)].lives),
            lives,
            "{launcher}: {fates:#?}"
        );
    }
}

/// A prediction that is certain is right, and any other has its reason.
#[track_caller]
fn assert_predicted(fates: &Fates, is_uncertain: impl Fn(&Case) -> bool) {
    for (case, fate) in fates {
        let is_right = match fate.predicted.as_str() {
            "survives" => fate.lives,
            "ends" => !fate.lives,
            _ => is_uncertain(case) && !fate.reasons.is_empty(),
        };
        assert!(is_right, "{case:?}: {fate:?}");
    }
}

#[test]
fn logout_that_kills_ends_all_but_the_scope_of_a_lingering_user() {
    let Some(fates) = observe(true) else { return };
    assert_predicted(&fates, |_| false);
    assert_lives(
        &fates,
        [
            ("COMMAND &", [false; 4]),
            ("nohup COMMAND &", [false; 4]),
            ("setsid -f COMMAND", [false; 4]),
            ("detach COMMAND", [false; 4]),
            ("detach --scope COMMAND", [false, false, true, true]),
        ],
    );
}

#[test]
fn logout_that_does_not_kill_ends_a_scope_unless_its_user_lingers() {
    let Some(fates) = observe(false) else { return };
    assert_predicted(&fates, |(launcher, _, lingers)| match *launcher {
        // What bash does depends on huponexit, and what a program does without its terminal on the program.
        "COMMAND &" | "setsid -f COMMAND" => true,
        // The manager of a user stays as long as anything else of a session.
        "detach --scope COMMAND" => !lingers,
        _ => false,
    });
    assert_lives(
        &fates,
        [
            ("COMMAND &", [true, false, true, false]),
            ("nohup COMMAND &", [true; 4]),
            ("setsid -f COMMAND", [true; 4]),
            ("detach COMMAND", [true; 4]),
            ("detach --scope COMMAND", [false, false, true, true]),
        ],
    );
}
