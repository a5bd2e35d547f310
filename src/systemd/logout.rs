//! What happens to a process at logout, by its control group and the settings of logind. Pure: it reads nothing.
//!
//! A login is a session scope, which logind may kill when it ends, and the user's service manager, which is stopped with
//! the last login unless the user lingers.

use crate::systemd::logind::LogoutSettings;
use crate::term::text::escape;

const SCOPE: &str = "start it with detach --scope";
const LINGER: &str = "run loginctl enable-linger";
const LINGER_AND_SCOPE: &str = "run loginctl enable-linger, then start it with detach --scope";

/// What happens to a process at logout, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct AtLogout {
    /// Absent where that depends on what cannot be read.
    pub survives: Option<bool>,
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
    let (survives, clause, remedy) = match unit {
        LoginUnit::Session => {
            let (survives, clause) = match settings.kills_user_processes {
                Some(true) => (Some(false), "which logind kills at logout (KillUserProcesses)"),
                Some(false) => (Some(true), "which logind does not kill at logout (KillUserProcesses)"),
                None => (None, "and the value of KillUserProcesses cannot be determined"),
            };
            let has_lasting_manager = is_root || settings.lingers == Some(true);
            (survives, clause, if has_lasting_manager { SCOPE } else { LINGER_AND_SCOPE })
        }
        LoginUnit::UserManager => {
            let (survives, clause) = match settings.lingers {
                Some(true) => (Some(true), "which keeps running after logout (lingering is enabled)"),
                Some(false) => (Some(false), "which is stopped at the last logout (lingering is disabled)"),
                None => (None, "and whether its user lingers cannot be determined"),
            };
            // The scopes of root are those of the system, unless it is root's own manager that would stop.
            (survives, clause, if is_root && name != b"user@0.service" { SCOPE } else { LINGER })
        }
    };
    Some(AtLogout { survives, fact: format!("it is in {}, {clause}", escape(name, "")), remedy })
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
        let session = "/user.slice/user-1000.slice/session-2.scope";
        let manager = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope";
        let of_root = "/user.slice/user-0.slice/user@0.service/app.slice/x.scope";
        for (group, user, kills, lingers, survives, remedy) in [
            (session, 1000, Some(true), Some(false), Some(false), LINGER_AND_SCOPE),
            (session, 1000, Some(true), Some(true), Some(false), SCOPE),
            (session, 1000, Some(true), None, Some(false), LINGER_AND_SCOPE),
            (session, 0, Some(true), Some(false), Some(false), SCOPE),
            (session, 1000, Some(false), Some(false), Some(true), LINGER_AND_SCOPE),
            (session, 1000, None, Some(true), None, SCOPE),
            (manager, 1000, Some(true), Some(true), Some(true), LINGER),
            (manager, 1000, Some(false), Some(false), Some(false), LINGER),
            (manager, 1000, None, None, None, LINGER),
            (manager, 0, None, Some(false), Some(false), SCOPE),
            (of_root, 0, Some(true), Some(false), Some(false), LINGER),
        ] {
            let settings = LogoutSettings { kills_user_processes: kills, lingers };
            let at_logout = judge(group.as_bytes(), Some(user), settings);
            let at_logout = at_logout.map(|it| (it.survives, it.remedy));
            assert_eq!(at_logout, Some((survives, remedy)), "{group} {user} {settings:?}");
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
