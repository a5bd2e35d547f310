//! stdin as the shells have it: what was given to the command on purpose is the command's, what the calling shell is
//! itself reading is not.
//!
//! In each shell, with controls in both directions: data given on purpose arrives, and what a script or a loop has left
//! does not, unless `-i -` asks for it.

use std::process::Stdio;

use crate::support::{DETACH, Run, Sandbox, Terminal};

struct Shell {
    name: &'static str,
    command: &'static [&'static str],
    syntax: Syntax,
    /// Whether what it reads from a pipe in a loop looks like data that was given to the command on purpose.
    shares_pipe_of_loop: bool,
}

#[derive(PartialEq)]
enum Syntax {
    Posix,
    Fish,
}

const fn shell(name: &'static str, command: &'static [&'static str], shares_pipe_of_loop: bool) -> Shell {
    let is_fish = matches!(name.as_bytes(), b"fish");
    Shell { name, command, syntax: if is_fish { Syntax::Fish } else { Syntax::Posix }, shares_pipe_of_loop }
}

const SHELLS: [Shell; 7] = [
    shell("bash", &["bash"], false),
    shell("dash", &["dash"], false),
    shell("zsh", &["zsh", "-f"], false),
    shell("fish", &["fish", "--no-config"], true),
    shell("ksh93", &["ksh93"], true),
    shell("mksh", &["mksh"], true),
    shell("busybox sh", &["busybox", "sh"], false),
];

impl Shell {
    /// Runs a script, which it reads from a file that is not its stdin.
    #[track_caller]
    fn run(&self, sandbox: &Sandbox, script: &str) {
        sandbox.write("script", script);
        Run::of(sandbox.command(self.command[0]).args(&self.command[1..]).arg("script")).exits(0);
    }

    /// The words that start the shell, for a script of sh.
    fn words(&self) -> String {
        self.command.join(" ")
    }
}

/// Removes the files of the last part of the test.
fn clean(sandbox: &Sandbox) {
    for name in ["out", "lines"] {
        sandbox.remove(name);
    }
}

fn assert_given_data_arrives(shell: &Shell) {
    requires!((shell.command[0]));
    let sandbox = Sandbox::new();
    let long = "0123456789\n".repeat(20_000);
    sandbox.write("data", "given\n");
    sandbox.write("long", &long);
    let group =
        if shell.syntax == Syntax::Fish { "begin; detach -w -o out cat; end" } else { "{ detach -w -o out cat; }" };
    for line in ["detach -w -o out cat < data", "echo given | detach -w -o out cat", "cat data | detach -w -o out cat"]
    {
        shell.run(&sandbox, &format!("{line}\n:\n"));
        assert_eq!(sandbox.read("out"), "given\n", "{}: {line}", shell.name);
        clean(&sandbox);
    }
    shell.run(&sandbox, &format!("{group} < data\n:\n"));
    assert_eq!(sandbox.read("out"), "given\n", "{}: a group of commands", shell.name);
    clean(&sandbox);
    shell.run(&sandbox, "cat long | detach -w -o out cat\n:\n");
    assert_eq!(sandbox.read("out"), long, "{}: more than a pipe holds", shell.name);
    clean(&sandbox);
    if shell.syntax == Syntax::Posix {
        for text in ["given\n", &long] {
            shell.run(&sandbox, &format!("detach -w -o out cat <<'END'\n{text}END\n:\n"));
            assert_eq!(sandbox.read("out"), text, "{}: a here-document", shell.name);
            clean(&sandbox);
        }
    }
}

fn assert_script_on_stdin_is_not_eaten(shell: &Shell) {
    requires!((shell.command[0]));
    let sandbox = Sandbox::new();
    // Longer than any shell reads at once.
    let padding = "true the padding of a script\n".repeat(10_000);
    for input in ["", "-i /dev/null"] {
        sandbox.write("script", format!("detach -vv -w {input} -o out cat\n{padding}echo end >> lines\n"));
        let words = shell.words();
        for line in [format!("{words} < script"), format!("cat script | {words}"), format!("cat script | {words} -s")] {
            if shell.syntax == Syntax::Fish && line.ends_with("-s") {
                continue;
            }
            let run = sandbox.sh(&line).exits(0);
            assert_eq!((sandbox.read("out"), sandbox.read("lines")), (String::new(), "end\n".into()), "{line}");
            // fish reads all of a script before it runs any of it, so nothing is left to eat; the rule holds all the
            // same.
            assert!(run.stderr.contains(" redirect stdin from /dev/null"), "{line}: {run:?}");
            clean(&sandbox);
        }
    }
}

fn assert_list_of_a_loop_is_not_eaten(shell: &Shell) {
    requires!((shell.command[0]));
    let sandbox = Sandbox::new();
    sandbox.write("list", "a\nb\nc\n");
    let body = |options| match shell.syntax {
        Syntax::Posix => format!("while read x; do detach -w {options} -o out cat; echo $x >> lines; done"),
        Syntax::Fish => format!("while read x; detach -w {options} -o out cat; echo $x >> lines; end"),
    };
    shell.run(&sandbox, &format!("{} < list\n:\n", body("")));
    assert_eq!((sandbox.read("out"), sandbox.read("lines")), (String::new(), "a\nb\nc\n".into()), "{}", shell.name);
    clean(&sandbox);
    // The control: with `-i -` the command eats the rest of the list.
    shell.run(&sandbox, &format!("{} < list\n:\n", body("-i -")));
    assert_eq!((sandbox.read("out"), sandbox.read("lines")), ("b\nc\n".into(), "a\n".into()), "{}", shell.name);
    clean(&sandbox);
    shell.run(&sandbox, &format!("cat list | {}\n:\n", body("")));
    let kept = if shell.shares_pipe_of_loop { ("b\nc\n", "a\n") } else { ("", "a\nb\nc\n") };
    assert_eq!((sandbox.read("out").as_str(), sandbox.read("lines").as_str()), kept, "{}", shell.name);
    clean(&sandbox);
    // Where the two cannot be told apart, there is an option.
    shell.run(&sandbox, &format!("cat list | {}\n:\n", body("-i /dev/null")));
    assert_eq!((sandbox.read("out"), sandbox.read("lines")), (String::new(), "a\nb\nc\n".into()), "{}", shell.name);
}

macro_rules! shell_tests {
    ($($given:ident $script:ident $list:ident: $shell:literal,)*) => {$(
        #[test]
        fn $given() {
            assert_given_data_arrives(SHELLS.iter().find(|shell| shell.name == $shell).unwrap());
        }

        #[test]
        fn $script() {
            assert_script_on_stdin_is_not_eaten(SHELLS.iter().find(|shell| shell.name == $shell).unwrap());
        }

        #[test]
        fn $list() {
            assert_list_of_a_loop_is_not_eaten(SHELLS.iter().find(|shell| shell.name == $shell).unwrap());
        }
    )*};
}

shell_tests! {
    data_given_in_bash_arrives script_on_stdin_of_bash_is_not_eaten list_of_a_loop_in_bash_is_not_eaten: "bash",
    data_given_in_dash_arrives script_on_stdin_of_dash_is_not_eaten list_of_a_loop_in_dash_is_not_eaten: "dash",
    data_given_in_zsh_arrives script_on_stdin_of_zsh_is_not_eaten list_of_a_loop_in_zsh_is_not_eaten: "zsh",
    data_given_in_fish_arrives script_on_stdin_of_fish_is_not_eaten list_of_a_loop_in_fish_is_not_eaten: "fish",
    data_given_in_ksh93_arrives script_on_stdin_of_ksh93_is_not_eaten list_of_a_loop_in_ksh93_is_not_eaten: "ksh93",
    data_given_in_mksh_arrives script_on_stdin_of_mksh_is_not_eaten list_of_a_loop_in_mksh_is_not_eaten: "mksh",
    data_given_in_busybox_sh_arrives script_on_stdin_of_busybox_sh_is_not_eaten
        list_of_a_loop_in_busybox_sh_is_not_eaten: "busybox sh",
}

#[test]
fn steps_say_what_becomes_of_stdin() {
    let sandbox = Sandbox::new();
    sandbox.write("list", "a\nb\n");
    let reason = |run: Run| {
        let run = run.exits(0);
        let line = run.stderr.lines().find(|line| line.contains(" redirect ")).unwrap().to_owned();
        line.split_once(" redirect ").unwrap().1.split(", output").next().unwrap().to_owned()
    };
    let file = sandbox.sh("{ read x; detach -vv -o /dev/null cat; } < list");
    assert_eq!(reason(file), "stdin from /dev/null (stdin is a file that the caller is reading)");
    let pipe = sandbox.bash("cat list | while read x; do detach -vv -o /dev/null cat; cat > /dev/null; done");
    assert_eq!(reason(pipe), "stdin from /dev/null (the calling shell is reading stdin)");
    let mut terminal = Terminal::open(&sandbox);
    let screen = terminal.succeeds("detach -vv -o /dev/null true");
    assert!(screen.contains(" redirect stdin from /dev/null (stdin is a terminal), output discarded\r\n"), "{screen}");
    let named = sandbox.detach(["-vv", "-o", "/dev/null", "-i", "list", "cat"]);
    assert_eq!(reason(named), format!("stdin from {}", sandbox.work("list").display()));
    let given = sandbox.sh("detach -vv -o /dev/null cat < list");
    assert_eq!(reason(given), "stdin kept");
}

#[test]
fn pipe_of_a_program_that_is_not_a_shell_goes_to_the_command() {
    requires!(python3);
    let sandbox = Sandbox::new();
    // As ssh or a build system does it: the caller passes its own stdin on.
    let script = "import subprocess; subprocess.run(['detach', '-w', '-o', 'out', 'cat'])";
    let mut python = sandbox.command("python3");
    let mut echo = sandbox.command("echo").arg("given").stdout(Stdio::piped()).spawn().unwrap();
    Run::of(python.args(["-c", script]).stdin(echo.stdout.take().unwrap())).succeeds_silently();
    echo.wait().unwrap();
    assert_eq!(sandbox.read("out"), "given\n");
}

#[test]
fn file_that_has_not_been_read_from_goes_to_the_command() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "one\ntwo\n");
    let file = || std::fs::File::open(sandbox.work("data")).unwrap();
    Run::of(sandbox.command(DETACH).args(["-w", "-o", "out", "cat"]).stdin(file())).succeeds_silently();
    assert_eq!(sandbox.read("out"), "one\ntwo\n");
    sandbox.remove("out");
    let mut read = file();
    std::io::Seek::seek(&mut read, std::io::SeekFrom::Start(4)).unwrap();
    Run::of(sandbox.command(DETACH).args(["-w", "-o", "out", "cat"]).stdin(read)).succeeds_silently();
    assert_eq!(sandbox.read("out"), "");
}
