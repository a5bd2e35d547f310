//! What logind does with the processes of a user when a login ends: logind.conf(5) with its drop-ins, and whether the
//! user lingers.
//!
//! Only files are read. What the settings mean for a process is left to `logout`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// What logind does with the processes of one user at logout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogoutSettings {
    /// Whether it kills what is left of a session. Absent where no file says so.
    pub kills_user_processes: Option<bool>,
    /// Whether the user's service manager keeps running after the last logout. Absent where the user has no name.
    pub lingers: Option<bool>,
}

impl LogoutSettings {
    /// Reads the settings for `user`.
    pub fn read(user: Option<u32>) -> Self {
        let name = user.and_then(find_user_name);
        Self {
            kills_user_processes: LogindSettings::read().kills_processes_of(name.as_deref()),
            lingers: name.map(|name| Path::new("/var/lib/systemd/linger").join(OsString::from_vec(name)).exists()),
        }
    }
}

/// The user who logged in: the one in the name of the control group, even if the process has changed its user since;
/// else the user of the process.
pub fn login_user(control_group: Option<&[u8]>, user: Option<u32>) -> Option<u32> {
    let number = |part: &[u8]| {
        let number = part.strip_prefix(b"user-").and_then(|rest| rest.strip_suffix(b".slice"));
        let number = number.or_else(|| part.strip_prefix(b"user@").and_then(|rest| rest.strip_suffix(b".service")));
        str::from_utf8(number?).ok()?.parse().ok()
    };
    let of_group = control_group.and_then(|group| group.split(|byte| *byte == b'/').find_map(number));
    of_group.or(user)
}

/// As logind knows the user, whose name may come from elsewhere than passwd(5): from LDAP, for example.
fn find_user_name(user: u32) -> Option<Vec<u8>> {
    let of_logind = fs::read(format!("/run/systemd/users/{user}")).ok();
    let of_logind = of_logind.and_then(|state| parse_logind_name(&state));
    of_logind.or_else(|| parse_user_name(&fs::read("/etc/passwd").ok()?, user))
}

/// The state of a user that logind keeps, one `KEY=VALUE` a line.
fn parse_logind_name(state: &[u8]) -> Option<Vec<u8>> {
    let mut lines = state.split(|byte| *byte == b'\n');
    // A name that logind may have quoted is ignored.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let name = lines.find_map(|line| line.strip_prefix(b"NAME="))?;
    (!name.is_empty() && name.iter().all(is_plain)).then(|| name.to_owned())
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
    /// Set to an empty list. The manual and the program disagree on whether root is then still excluded.
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

    #[test]
    fn user_name_is_that_of_logind() {
        for (state, name) in [
            ("# This is private data. Do not parse.\nNAME=jo.d\nSTATE=active\n", Some("jo.d")),
            ("NAME=\n", None),
            ("NAME=\"a b\"\n", None),
            ("NAME=../x\n", None),
            ("STATE=active\n", None),
        ] {
            assert_eq!(parse_logind_name(state.as_bytes()), name.map(Into::into), "{state}");
        }
    }

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
        for (group, user) in [
            (Some(&b"/user.slice/user-1000.slice/session-2.scope"[..]), Some(1000)),
            (Some(b"/user.slice/user@1001.service/app.slice"), Some(1001)),
            (Some(b"/system.slice/cron.service"), Some(0)),
            (None, Some(0)),
        ] {
            assert_eq!(login_user(group, Some(0)), user);
        }
    }
}
