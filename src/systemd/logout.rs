//! What happens to a process at logout, by its control group and the settings of logind. Pure: it reads nothing.
//!
//! A login is a session scope, which logind may kill when it ends, and the user's service manager, which is stopped
//! when nothing is left of the user's sessions, unless the user lingers.

use crate::systemd::logind::LogoutSettings;
use crate::term::text::escape;

const SCOPE: &str = "start it with detach --scope";
const LINGER: &str = "run loginctl enable-linger";
const LINGER_AND_SCOPE: &str = "run loginctl enable-linger, then start it with detach --scope";

/// Whether a process outlives the logout of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Survives,
    Ends,
    /// It ends, unless some other process stays behind in a session of its user.
    EndsWithTheLast,
    /// That depends on what cannot be read.
    Unknown,
}

/// What happens to a process at logout, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct AtLogout {
    pub fate: Fate,
    /// A clause about "it", the process.
    pub fact: String,
    pub remedy: &'static str,
}

/// The unit that ends with a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginUnit {
    /// `session-2.scope`
    Session,
    /// `user@1000.service`
    UserManager,
}

/// Judges a process in `control_group` that runs as `user`. `None`: that control group does not belong to a login.
pub fn judge(control_group: &[u8], user: Option<u32>, settings: LogoutSettings) -> Option<AtLogout> {
    let (unit, name) = find_login_unit(control_group)?;
    let is_root = user == Some(0);
    let (fate, clause, remedy) = match unit {
        LoginUnit::Session => {
            let (fate, clause) = match settings.kills_user_processes {
                Some(true) => (Fate::Ends, "which logind kills at logout (KillUserProcesses)"),
                Some(false) => (Fate::Survives, "which logind does not kill at logout (KillUserProcesses)"),
                None => (Fate::Unknown, "and the value of KillUserProcesses cannot be determined"),
            };
            let has_lasting_manager = is_root || settings.lingers == Some(true);
            (fate, clause, if has_lasting_manager { SCOPE } else { LINGER_AND_SCOPE })
        }
        LoginUnit::UserManager => {
            let (fate, clause) = match (settings.lingers, settings.kills_user_processes) {
                (Some(true), _) => (Fate::Survives, "which keeps running after logout (lingering is enabled)"),
                (Some(false), Some(true)) => {
                    (Fate::Ends, "which is stopped at the last logout (lingering is disabled)")
                }
                (Some(false), _) => (
                    Fate::EndsWithTheLast,
                    "which is stopped when nothing is left of its user's sessions (lingering is disabled)",
                ),
                (None, _) => (Fate::Unknown, "and whether its user lingers cannot be determined"),
            };
            // The scopes of root are those of the system, unless it is root's own manager that would stop.
            (fate, clause, if is_root && name != b"user@0.service" { SCOPE } else { LINGER })
        }
    };
    Some(AtLogout { fate, fact: format!("it is in {}, {clause}", escape(name, "")), remedy })
}

fn find_login_unit(control_group: &[u8]) -> Option<(LoginUnit, &[u8])> {
    control_group.split(|byte| *byte == b'/').find_map(|part| {
        if part.starts_with(b"session-") && part.ends_with(b".scope") {
            Some((LoginUnit::Session, part))
        } else if part.starts_with(b"user@") && part.ends_with(b".service") {
            Some((LoginUnit::UserManager, part))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_is_what_helps() {
        use Fate::{Ends, EndsWithTheLast, Survives, Unknown};
        let session = "/user.slice/user-1000.slice/session-2.scope";
        let manager = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope";
        let of_root = "/user.slice/user-0.slice/user@0.service/app.slice/x.scope";
        for (group, user, kills, lingers, fate, remedy) in [
            (session, 1000, Some(true), Some(false), Ends, LINGER_AND_SCOPE),
            (session, 1000, Some(true), Some(true), Ends, SCOPE),
            (session, 1000, Some(true), None, Ends, LINGER_AND_SCOPE),
            (session, 0, Some(true), Some(false), Ends, SCOPE),
            (session, 1000, Some(false), Some(false), Survives, LINGER_AND_SCOPE),
            (session, 1000, None, Some(true), Unknown, SCOPE),
            (manager, 1000, Some(true), Some(true), Survives, LINGER),
            (manager, 1000, Some(true), Some(false), Ends, LINGER),
            (manager, 1000, Some(false), Some(false), EndsWithTheLast, LINGER),
            (manager, 1000, None, Some(false), EndsWithTheLast, LINGER),
            (manager, 1000, None, None, Unknown, LINGER),
            (manager, 0, Some(true), Some(false), Ends, SCOPE),
            (of_root, 0, Some(true), Some(false), Ends, LINGER),
        ] {
            let settings = LogoutSettings { kills_user_processes: kills, lingers };
            let at_logout = judge(group.as_bytes(), Some(user), settings);
            let at_logout = at_logout.map(|it| (it.fate, it.remedy));
            assert_eq!(at_logout, Some((fate, remedy)), "{group} {user} {settings:?}");
        }
    }

    #[test]
    fn control_group_of_a_service_belongs_to_no_login() {
        let settings = LogoutSettings { kills_user_processes: Some(true), lingers: Some(false) };
        for group in ["/system.slice/cron.service", "/user.slice/user-1000.slice", "/session-2.slice", "/", ""] {
            assert_eq!(judge(group.as_bytes(), Some(1000), settings), None, "{group}");
        }
    }
}
