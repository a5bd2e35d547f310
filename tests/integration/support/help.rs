//! What the help of the program and of its modes says, for comparison with what is written elsewhere.

use std::collections::BTreeSet;

use super::sandbox::Sandbox;

/// The help of the program, or of a mode.
#[track_caller]
pub fn help(mode: Option<&str>) -> String {
    Sandbox::new().detach(mode.into_iter().chain(["--help"])).succeeds()
}

/// The options in the help of the program, with the modes, or in that of a mode: the words at the beginning of a line
/// before the value or the description.
#[track_caller]
pub fn options_in_help(mode: Option<&str>) -> BTreeSet<String> {
    let help = help(mode);
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let names = lines.flat_map(|line| line.split_ascii_whitespace().take_while(|word| word.starts_with('-')));
    // `-v, --verbose...`
    names.map(|name| name.trim_end_matches([',', '.']).to_owned()).collect()
}

/// The modes that the help of the program lists.
#[track_caller]
pub fn modes() -> Vec<String> {
    let help = help(None);
    let lines = help.lines().skip_while(|line| !line.starts_with("Modes")).skip(1).take_while(|line| !line.is_empty());
    let modes: Vec<String> = lines.filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect();
    assert!(modes.len() >= 6, "{help}");
    modes
}
