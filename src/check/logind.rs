//! What systemd does with the processes of a user at logout and under memory pressure: the settings of logind.conf(5)
//! and its drop-ins, whether the user lingers, and whether systemd-oomd(8) is running.
//!
//! Only files are read, and only if systemd is running. `judge` decides what the settings mean for a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::unistd::Pid;

use crate::sys::proc::{Stat, Status};

/// What is known of the service manager of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceManager {
    pub is_systemd_running: bool,
    /// elogind is logind without the rest of systemd.
    pub is_elogind_running: bool,
    pub is_oomd_running: bool,
    /// Whether logind kills the processes of the user at logout. Absent where no file says so.
    pub kills_user_processes: Option<bool>,
    /// Whether the user's manager keeps running after logout. Absent where the user has no name.
    pub lingers: Option<bool>,
}

impl ServiceManager {
    /// Reads what the service manager does with the processes of `user`.
    pub fn read(user: Option<u32>, table: &BTreeMap<Pid, Stat>) -> Self {
        let is_elogind_running = table.values().any(|stat| stat.name.starts_with(b"elogind"));
        // sd_booted(3) checks the same.
        if !Path::new("/run/systemd/system").is_dir() {
            return Self { is_elogind_running, ..Self::default() };
        }
        let name = user.and_then(find_user_name);
        Self {
            is_systemd_running: true,
            is_elogind_running,
            is_oomd_running: table.values().any(|stat| stat.name == b"systemd-oomd"),
            kills_user_processes: LogindSettings::read().kills_processes_of(name.as_deref()),
            lingers: name.map(|name| Path::new("/var/lib/systemd/linger").join(OsString::from_vec(name)).exists()),
        }
    }
}

/// The user who logged in: the one in the name of the control group, even if the process has changed its user since;
/// else the user of the process.
pub fn login_user(control_group: Option<&[u8]>, status: Option<&Status>) -> Option<u32> {
    let number = |part: &[u8]| {
        let number = part.strip_prefix(b"user-").and_then(|rest| rest.strip_suffix(b".slice"));
        let number = number.or_else(|| part.strip_prefix(b"user@").and_then(|rest| rest.strip_suffix(b".service")));
        str::from_utf8(number?).ok()?.parse().ok()
    };
    let of_group = control_group.and_then(|group| group.split(|byte| *byte == b'/').find_map(number));
    of_group.or_else(|| status.map(|status| status.user))
}

fn find_user_name(user: u32) -> Option<Vec<u8>> {
    parse_user_name(&fs::read("/etc/passwd").ok()?, user)
}

/// passwd(5)
fn parse_user_name(passwd: &[u8], user: u32) -> Option<Vec<u8>> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let number: u32 = str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        (number == user).then(|| name.to_owned())
    })
}

/// The settings of logind.conf(5) that decide whose processes are killed.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogindSettings {
    kill: Option<bool>,
    only: Vec<Vec<u8>>,
    exclude: Vec<Vec<u8>>,
    /// Set to an empty list. Whether root is then still excluded, the manual and the program disagree.
    is_exclude_reset: bool,
}

impl LogindSettings {
    /// The first main file that exists, then all drop-ins in the order of their names. A drop-in in /etc replaces the
    /// one of the same name in /run, and so on: systemd.syntax(7), logind.conf(5).
    fn read() -> Self {
        let directories = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"].map(Path::new);
        let mut settings = Self::default();
        let main = directories.iter().find_map(|directory| fs::read(directory.join("logind.conf")).ok());
        settings.apply(&main.unwrap_or_default());
        let mut drop_ins = BTreeMap::new();
        for directory in directories.iter().rev() {
            for entry in fs::read_dir(directory.join("logind.conf.d")).into_iter().flatten().flatten() {
                drop_ins.insert(entry.file_name(), entry.path());
            }
        }
        for (_, path) in drop_ins.iter().filter(|(name, _)| name.as_bytes().ends_with(b".conf")) {
            settings.apply(&fs::read(path).unwrap_or_default());
        }
        settings
    }

    /// Applies the settings of a file. The main file that systemd ships shows the defaults in comments and says so.
    fn apply(&mut self, file: &[u8]) {
        let shows_defaults = file.windows(21).any(|words| words == b"compile time defaults");
        let mut is_login = false;
        for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.starts_with(b"[") {
                is_login = line == b"[Login]";
            }
            let (line, is_default) = line.strip_prefix(b"#").map_or((line, false), |rest| (rest, true));
            let Some(place) = line.iter().position(|byte| *byte == b'=').filter(|_| is_login) else { continue };
            let key = line.get(..place).unwrap_or_default().trim_ascii();
            let value = line.get(place + 1..).unwrap_or_default().trim_ascii();
            let users = value.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty()).map(<[u8]>::to_owned);
            match (key, is_default) {
                (b"KillUserProcesses", true) if shows_defaults => self.kill = self.kill.or(parse_boolean(value)),
                // An invalid value is ignored.
                (b"KillUserProcesses", false) => self.kill = parse_boolean(value).or(self.kill),
                (b"KillOnlyUsers", false) if value.is_empty() => self.only.clear(),
                (b"KillOnlyUsers", false) => self.only.extend(users),
                (b"KillExcludeUsers", false) if value.is_empty() => {
                    self.exclude.clear();
                    self.is_exclude_reset = true;
                }
                (b"KillExcludeUsers", false) => self.exclude.extend(users),
                _ => (),
            }
        }
    }

    /// Whether the processes of a session of this user are killed when it ends; `None` where no file says so.
    /// `KillExcludeUsers` wins over `KillOnlyUsers`, and that over `KillUserProcesses`.
    fn kills_processes_of(&self, user: Option<&[u8]>) -> Option<bool> {
        let Some(user) = user else {
            // For a user without a name, only a setting that holds for all users counts.
            return self.kill.filter(|_| self.only.is_empty() && (self.exclude.is_empty() || self.kill == Some(false)));
        };
        let lists = |names: &[Vec<u8>]| names.iter().any(|name| name == user);
        if lists(&self.exclude) || user == b"root" && !self.is_exclude_reset {
            Some(false)
        } else if user == b"root" {
            None
        } else if self.only.is_empty() {
            self.kill
        } else {
            Some(lists(&self.only))
        }
    }
}

/// systemd.syntax(7)
fn parse_boolean(value: &[u8]) -> Option<bool> {
    match value.to_ascii_lowercase().as_slice() {
        b"1" | b"yes" | b"y" | b"true" | b"t" | b"on" => Some(true),
        b"0" | b"no" | b"n" | b"false" | b"f" | b"off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::SignalSet;

    #[test]
    fn user_name_is_read_from_passwd() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nbroken\n\xff:x:7:7:::\njo:x:1000:1000:a:b:c\n";
        assert_eq!(parse_user_name(passwd, 1000).as_deref(), Some(&b"jo"[..]));
        assert_eq!(parse_user_name(passwd, 7).as_deref(), Some(&b"\xff"[..]));
        assert_eq!(parse_user_name(passwd, 2), None);
    }

    #[test]
    fn later_files_override_earlier_ones() {
        let settings = |files: &[&str]| {
            let mut settings = LogindSettings::default();
            for file in files {
                settings.apply(file.as_bytes());
            }
            settings
        };
        for (files, kills) in [
            (&[][..], None),
            (&["# show the compile time defaults.\n[Login]\n#KillUserProcesses=no\n"], Some(false)),
            (&["# show the compile time defaults.\n[Login]\n#KillUserProcesses=yes\n"], Some(true)),
            (&["[Login]\n#KillUserProcesses=yes\n"], None),
            (&["# compile time defaults\n[Login]\n#KillUserProcesses=no\nKillUserProcesses = yes\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=yes\nKillUserProcesses=perhaps\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=no\nKillOnlyUsers=jo\n"], Some(true)),
            (&["[Login]\nKillOnlyUsers=jo\n", "[Login]\nKillOnlyUsers=ann\n"], Some(true)),
            (&["[Login]\nKillUserProcesses=no\nKillOnlyUsers=jo\nKillOnlyUsers=\n"], Some(false)),
            (&["[Other]\nKillUserProcesses=yes\n"], None),
            (&["[Login]\nKillUserProcesses=yes", "[Login]\nKillUserProcesses=off"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillExcludeUsers=ann jo"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillOnlyUsers=ann"], Some(false)),
            (&["[Login]\nKillUserProcesses=1\nKillOnlyUsers=ann jo\nKillExcludeUsers="], Some(true)),
            (&["\0[Login\n=\n[Login]\n=\nKillUserProcesses"], None),
        ] {
            assert_eq!(settings(files).kills_processes_of(Some(b"jo")), kills, "{files:?}");
        }
        let yes = settings(&["[Login]\nKillUserProcesses=yes"]);
        assert_eq!((yes.kills_processes_of(Some(b"root")), yes.kills_processes_of(None)), (Some(false), Some(true)));
        let other = settings(&["[Login]\nKillUserProcesses=yes\nKillExcludeUsers=ann"]);
        assert_eq!((other.kills_processes_of(Some(b"root")), other.kills_processes_of(None)), (Some(false), None));
        let reset = settings(&["[Login]\nKillUserProcesses=yes\nKillExcludeUsers="]);
        assert_eq!(reset.kills_processes_of(Some(b"root")), None);
    }

    #[test]
    fn login_user_is_taken_from_the_control_group() {
        let status =
            Status { user: 0, umask: None, blocked: SignalSet(0), ignored: SignalSet(0), caught: SignalSet(0) };
        for (group, user) in [
            (Some(&b"/user.slice/user-1000.slice/session-2.scope"[..]), Some(1000)),
            (Some(b"/user.slice/user@1001.service/app.slice"), Some(1001)),
            (Some(b"/system.slice/cron.service"), Some(0)),
            (None, Some(0)),
        ] {
            assert_eq!(login_user(group, Some(&status)), user);
        }
    }
}
