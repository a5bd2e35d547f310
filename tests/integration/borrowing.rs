//! A new process borrows the memory of its launcher until its exec: it allocates nothing, and SIGKILL may end it at any
//! moment without harm to the launcher.
//!
//! Debug builds kill a borrower that allocates or frees (src/sys/allocator.rs), so every start in these tests shows
//! that none does. Here are starts in every mode.

use crate::support::killing::{MODES, are_children_listed, kill_first_processes};
use crate::support::{Sandbox, skip};

#[test]
fn new_process_allocates_nothing_whatever_it_does() {
    let sandbox = Sandbox::new();
    sandbox.write("in", "");
    sandbox.script("plain", "exit 3\n");
    sandbox.script("broken", "#!/no/such/interpreter\n");
    for mode in MODES {
        for options in [
            &[][..],
            &["-o", "/dev/null"],
            &["-o", "out", "-e", "err", "-i", "in", "-C", "/", "-m", "027", "--sigchld", "ignore"],
            &["--pidfile", "pid"],
            &["--json", "-N", "name"],
            &["-vv"],
        ] {
            let start = |command: &[&str]| sandbox.detach(mode.iter().chain(options).chain(command));
            let what = format!("{mode:?} {options:?}");
            assert_eq!(start(&["-w", "/bin/sh", "-c", "exit 7"]).status, 7, "{what}");
            // Nothing, or what runs through sh, or what is searched for in PATH.
            assert_eq!(start(&["/no/such/command"]).status, 127, "{what}");
            assert_eq!(start(&["-w", "./plain"]).status, 3, "{what}");
            assert_eq!(start(&["./broken"]).status, 127, "{what}");
            assert_eq!(start(&["-w", "true"]).status, 0, "{what}");
            // A directory and a pidfile that cannot be used.
            assert_eq!(start(&["-C", "/no/such/directory", "true"]).status, 125, "{what}");
            assert_eq!(start(&["--pidfile", "/proc/pid", "true"]).status, 125, "{what}");
        }
    }
}

/// `cargo bench --bench faults -- moments` makes more starts, and `-- instructions` leaves out no moment.
#[test]
fn first_process_may_be_killed_at_any_moment() {
    if !are_children_listed() {
        skip("the kernel does not list children (CONFIG_PROC_CHILDREN)");
        return;
    }
    std::thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || {
                let tally = kill_first_processes(mode, 0..150);
                assert!(tally.shortfalls.is_empty(), "{mode:?}:\n{}", tally.shortfalls.join("\n"));
                // The moments were such that some of the starts failed, and some did not.
                assert!(tally.started > 0 && tally.refused > 0, "{mode:?}: {} started", tally.started);
            });
        }
    });
}

/// valgrind makes a fork of the clone, and of its flags only CLONE_PARENT_SETTID and CLONE_CHILD_CLEARTID are left.
#[test]
fn command_does_not_run_where_the_memory_is_not_shared() {
    requires!(strace, valgrind);
    let sandbox = Sandbox::new();
    let stderr = "detach: cannot start 'touch': a new process cannot share memory here, perhaps because of an emulator";
    for mode in ["", "-t --full"] {
        // The launcher is held up, so that the new process could do everything before it is noticed.
        let strace = "strace -f -o trace -e trace=clone -e inject=clone:delay_exit=500000:when=1";
        let run = sandbox.sh(&format!("{strace} valgrind --tool=none -q detach {mode} -C . --pidfile pid touch ran"));
        run.fails(125, stderr);
        assert!(!sandbox.work("ran").exists() && !sandbox.work("pid").exists(), "{mode}");
        sandbox.assert_nothing_left();
    }
}
