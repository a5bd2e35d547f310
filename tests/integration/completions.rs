//! The completions in real shells: each on a terminal, with its own keys, and its command line read back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::help::{modes, options_in_help};
use crate::support::{Sandbox, Terminal, are_met, await_result, eventually, skip};

const TAB: &str = "\t";
/// Puts every completion into the line.
const ALL: &str = "\x14";
/// Has the shell write its line to ~/line, and empties it.
const TELL: &str = "\x07";

const BASH_COMPLETION: &str = "/usr/share/bash-completion/bash_completion";

struct Shell {
    program: &'static [&'static str],
    /// Loads the completion from $COMPLETIONS and binds `ALL` and `TELL`.
    setup: &'static str,
}

const BASH: Shell = Shell {
    program: &["bash", "--norc", "--noprofile"],
    setup: r#"
        echo $$ > ~/started
        [[ ! $LOAD ]] || . "$LOAD"
        . "$COMPLETIONS/detach.bash"
        tell() { printf '%s\n' "$READLINE_LINE" > ~/line; READLINE_LINE='' READLINE_POINT=0; }
        bind -x '"\C-g": tell'
        bind '"\C-t": insert-completions'
        PS1='READY> '
    "#,
};

const ZSH: Shell = Shell {
    program: &["zsh", "-f"],
    setup: r#"
        echo $$ > ~/started
        fpath=("$COMPLETIONS" $fpath)
        autoload -Uz compinit
        compinit -D -u
        bindkey -e
        tell() { print -r -- "$BUFFER" > ~/line; BUFFER= }
        zle -N tell
        bindkey '^G' tell
        insert_all() { _main_complete; compstate[insert]=all }
        zle -C all complete-word insert_all
        bindkey '^T' all
        PS1='READY> '
    "#,
};

const FISH: Shell = Shell {
    program: &["fish", "--no-config"],
    setup: r#"
        echo $fish_pid > ~/started
        set -g fish_complete_path $COMPLETIONS $__fish_data_dir/completions
        function tell
            set -l line (commandline --current-buffer)
            commandline --replace ''
            printf '%s\n' "$line" > ~/line
        end
        function all
            set -l offers (complete --do-complete (commandline --current-buffer) | string replace --regex '\t.*' '')
            commandline --replace -- "$offers"
        end
        bind \cg tell
        bind \ct all
        function fish_prompt
            echo -n 'READY> '
        end
    "#,
};

/// A shell that waits at its prompt.
struct Prompt {
    name: &'static str,
    terminal: Terminal,
    line: PathBuf,
}

impl Prompt {
    /// bash, zsh and fish, as far as they are installed, with the completion loaded.
    fn all(sandbox: &Sandbox) -> Vec<Self> {
        let mut prompts = Vec::new();
        if !Path::new(BASH_COMPLETION).is_file() {
            skip("bash-completion is not installed (tests/run installs it)");
        } else if are_met(&["bash"]) {
            prompts.push(Self::open(sandbox, &BASH, BASH_COMPLETION));
        }
        for shell in [&ZSH, &FISH] {
            if are_met(&[shell.program[0]]) {
                prompts.push(Self::open(sandbox, shell, ""));
            }
        }
        prompts
    }

    /// A shell in which the completion is loaded, after the file `load`.
    fn open(sandbox: &Sandbox, shell: &Shell, load: &str) -> Self {
        let name = shell.program[0];
        let setup = sandbox.path(&format!("{name}.setup"));
        fs::write(&setup, shell.setup).unwrap();
        let completions = concat!("COMPLETIONS=", env!("CARGO_MANIFEST_DIR"), "/completions");
        let load = format!("LOAD={load}");
        let mut terminal = Terminal::open_with(sandbox, &[&["env", completions, &load], shell.program].concat());
        let started = sandbox.path("home/started");
        let _ = fs::remove_file(&started);
        terminal.start(&format!("source {}", setup.display()), &started);
        terminal.wait_for("READY> ");
        Self { name, terminal, line: sandbox.path("home/line") }
    }

    /// The line after these keys.
    #[track_caller]
    fn after(&mut self, keys: &[&str]) -> String {
        let _ = fs::remove_file(&self.line);
        self.terminal.press(&keys.concat());
        self.terminal.press(TELL);
        await_result(|| {
            let line = fs::read_to_string(&self.line).unwrap_or_default();
            let last_seen = || format!("{} after {keys:?}: {:?}", self.name, self.terminal.screen_end());
            line.strip_suffix('\n').map(str::to_owned).ok_or_else(last_seen)
        })
    }

    /// The screen after these keys, when `text` has appeared on it.
    #[track_caller]
    fn screen_after(&mut self, keys: &[&str], text: &str) -> String {
        self.terminal.press(&keys.concat());
        self.terminal.wait_for(text);
        self.terminal.screen()
    }

    #[track_caller]
    fn assert_completes(&mut self, typed: &str, expected: &str) {
        assert_eq!(self.after(&[typed, TAB]), expected, "{} after {typed:?}", self.name);
    }

    /// The options that it offers in place of the last of these words after `detach`.
    #[track_caller]
    fn options(&mut self, words: &str) -> BTreeSet<String> {
        let line = self.after(&["detach ", words, ALL]);
        // fish replaces the whole line.
        let before = words.rfind(' ').map_or("", |end| &words[..end]);
        let typed = format!("detach {before}");
        let offers = line.strip_prefix(typed.trim_end()).unwrap_or(&line).split_ascii_whitespace();
        offers.map(|offer| offer.trim_end_matches('=').to_owned()).collect()
    }
}

/// A sandbox with a command, a directory, and a file whose name must be quoted.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.script("uniquely-named", "");
    sandbox.write("notes on zsh.txt", "");
    fs::create_dir(sandbox.work("directory")).unwrap();
    sandbox
}

#[test]
fn options_offered_are_those_of_the_help() {
    let options = options_in_help(None);
    let long = |options: &BTreeSet<String>| -> BTreeSet<String> {
        options.iter().filter(|option| option.starts_with("--")).cloned().collect()
    };
    let sandbox = Sandbox::new();
    for mut prompt in Prompt::all(&sandbox) {
        assert_eq!(prompt.options("-"), options, "{}", prompt.name);
        assert_eq!(prompt.options("--"), long(&options), "{}", prompt.name);
        for mode in modes() {
            let options = options_in_help(Some(&mode));
            assert_eq!(prompt.options(&format!("{mode} -")), options, "{} {mode}", prompt.name);
            assert_eq!(prompt.options(&format!("-q {mode} --")), long(&options), "{} {mode}", prompt.name);
        }
    }
}

#[test]
fn wrapped_command_completes_as_it_does_alone() {
    requires!(git);
    let sandbox = sandbox();
    sandbox.sh("git init --quiet").succeeds_silently();
    for mut prompt in Prompt::all(&sandbox) {
        // The control: the shell completes git at all.
        prompt.assert_completes("git cherry-p", "git cherry-pick ");
        for options in ["", "-o log ", "-olog ", "-qo log ", "--output=log ", "--output log ", "-qv ", "-- ", "-v -- "]
        {
            let typed = format!("detach {options}git cherry-p");
            prompt.assert_completes(&typed, &format!("{typed}ick "));
        }
        // Options of git that are also options of detach.
        prompt.assert_completes("detach -q git -C . cherry-p", "detach -q git -C . cherry-pick ");
        // The command itself, and its files.
        prompt.assert_completes("detach mkfif", "detach mkfifo ");
        prompt.assert_completes("detach -w -- mkfif", "detach -w -- mkfifo ");
        prompt.assert_completes("detach ./uniq", "detach ./uniquely-named ");
        prompt.assert_completes("detach cat not", r"detach cat notes\ on\ zsh.txt ");
    }
}

#[test]
fn options_complete_until_the_command_has_begun() {
    let sandbox = sandbox();
    for mut prompt in Prompt::all(&sandbox) {
        prompt.assert_completes("detach --print", "detach --print-pid ");
        prompt.assert_completes("detach -o log --print", "detach -o log --print-pid ");
        for unchanged in ["detach git --print", "detach -q git --print", "detach -- --print"] {
            prompt.assert_completes(unchanged, unchanged);
        }
    }
}

#[test]
fn values_of_options_complete() {
    let sandbox = sandbox();
    sandbox.write("directory.txt", "");
    for mut prompt in Prompt::all(&sandbox) {
        prompt.assert_completes("detach --sigchld d", "detach --sigchld default ");
        prompt.assert_completes("detach --sigchld=i", "detach --sigchld=ignore ");
        prompt.assert_completes("detach -m 07", "detach -m 077 ");
        // All that the values have in common.
        prompt.assert_completes("detach --umask=", "detach --umask=0");
        prompt.assert_completes("detach -qo not", r"detach -qo notes\ on\ zsh.txt ");
        prompt.assert_completes("detach --output=not", r"detach --output=notes\ on\ zsh.txt ");
        // Directories only, although a file begins the same.
        prompt.assert_completes("detach -C direc", "detach -C directory/");
        prompt.assert_completes("detach --chdir=direc", "detach --chdir=directory/");
        prompt.assert_completes("detach --chdir=", "detach --chdir=directory/");
    }
}

#[test]
fn jobs_complete_by_pid_and_by_name() {
    let sandbox = sandbox();
    let running = sandbox.job(["-N", "running-one", "sleep", "60"]);
    let twins = [60, 61].map(|seconds| sandbox.job(["-N", "twin", "sleep", &seconds.to_string()]));
    let ended = sandbox.job(["-N", "ended-one", "true"]);
    sandbox.job(["-N", "launcher", "sh", "-c", "sleep 60 &"]);
    eventually(|| ended.is_dead());
    sandbox.job(["-N", "odd\n", "sleep", "60"]);
    let pid = running.pid.to_string();
    for mut prompt in Prompt::all(&sandbox) {
        for mode in ["--stop", "--join", "--log"] {
            prompt.assert_completes(&format!("detach {mode} runn"), &format!("detach {mode} running-one "));
            prompt.assert_completes(&format!("detach -q {mode} {pid}"), &format!("detach -q {mode} {pid} "));
            prompt.assert_completes(&format!("detach {mode} laun"), &format!("detach {mode} launcher "));
            let unchanged = format!("detach {mode} odd");
            prompt.assert_completes(&unchanged, &unchanged);
        }
        for several in ["--stop", "--join"] {
            let first = format!("detach {several} running-one ");
            prompt.assert_completes(&format!("{first}{}", twins[0].pid), &format!("{first}{} ", twins[0].pid));
            // A name of two jobs is refused, and an ended job cannot be stopped.
            for unchanged in ["twi", "ended-o"].map(|word| format!("detach {several} {word}")) {
                prompt.assert_completes(&unchanged, &unchanged);
            }
        }
        prompt.assert_completes("detach --check runn", "detach --check running-one ");
        prompt.assert_completes(&format!("detach --check {pid}"), &format!("detach --check {pid} "));
        prompt.assert_completes("detach --log twi", "detach --log twin ");
        prompt.assert_completes("detach --log ended-o", "detach --log ended-one ");
        prompt.assert_completes("detach --log -f ended-o", "detach --log -f ended-one ");
        prompt.assert_completes(&format!("detach --log {}", ended.pid), &format!("detach --log {} ", ended.pid));
        prompt.assert_completes("detach --stop running-one --verb", "detach --stop running-one --verbose ");
        prompt.assert_completes("detach --stop running-one --signal US", "detach --stop running-one --signal USR");
        prompt.assert_completes("detach --stop --all twi", "detach --stop --all twin ");
        // After the command, and as the value of an option, there are no modes.
        prompt.assert_completes("detach git --stop runn", "detach git --stop runn");
        prompt.assert_completes("detach -N --stop runn", "detach -N --stop runn");
    }
}

#[test]
fn jobs_of_the_shell_complete_when_the_function_is_loaded() {
    let sandbox = Sandbox::new();
    for mut prompt in Prompt::all(&sandbox) {
        prompt.assert_completes("detach --init zs", "detach --init zsh ");
        prompt.terminal.type_line("sleep 60 &");
        // Without the function, this is the name of a command.
        prompt.assert_completes("detach %", "detach %");
        let load = if prompt.name == "fish" { "detach --init fish | source" } else { "eval \"$(detach --init $0)\"" };
        let load = load.replace("$0", prompt.name);
        let loaded = sandbox.path(&format!("{}.loaded", prompt.name));
        let is_loaded = || if loaded.exists() { Ok(()) } else { Err("not loaded".to_owned()) };
        prompt.terminal.type_until(&format!("{load}; echo > {}", loaded.display()), is_loaded);
        let name = if prompt.name == "fish" { "%1" } else { "%sle" };
        let expected = if prompt.name == "fish" { "%1" } else { "%sleep" };
        prompt.assert_completes(&format!("detach {name}"), &format!("detach {expected} "));
        // The rest of the completion still works.
        prompt.assert_completes("detach --print", "detach --print-pid ");
        prompt.assert_completes("detach mkfif", "detach mkfifo ");
    }
}

#[test]
fn names_of_jobs_are_not_run_as_code() {
    let sandbox = sandbox();
    for name in ["$(touch ran)", "`touch ran`", "a]b", "[", "(", "*", "@", "-dash", "x'y", "a:b", "it", "%n"] {
        sandbox.job(["-o", "/dev/null", &format!("--name={name}"), "sleep", "60"]);
    }
    for mut prompt in Prompt::all(&sandbox) {
        for mode in ["--stop", "--log"] {
            let screen = prompt.screen_after(&[&format!("detach {mode} "), TAB, TAB], "a]b");
            let screen = screen.to_lowercase();
            assert!(!["bad", "error", "invalid"].iter().any(|word| screen.contains(word)), "{}: {screen}", prompt.name);
            prompt.after(&["\x15"]);
            // A name that looks like an option would be taken for one.
            let unchanged = format!("detach {mode} -das");
            prompt.assert_completes(&unchanged, &unchanged);
            prompt.assert_completes(&format!("detach {mode} i"), &format!("detach {mode} it "));
        }
        assert!(!sandbox.work("ran").exists(), "{}", prompt.name);
    }
}

#[test]
fn jobs_are_described_by_their_commands() {
    let sandbox = sandbox();
    for seconds in ["61", "62"] {
        sandbox.job(["-N", &format!("job{seconds}"), "sleep", seconds]);
    }
    for mut prompt in Prompt::all(&sandbox) {
        prompt.screen_after(&["detach --stop job", TAB, TAB, TAB], "sleep 62");
        prompt.terminal.wait_for("sleep 61");
    }
}

#[test]
fn bash_without_bash_completion_completes_commands_and_files() {
    requires!(bash);
    let sandbox = sandbox();
    let mut prompt = Prompt::open(&sandbox, &BASH, "");
    for options in ["", "-q ", "-o log ", "--output=log ", "-- "] {
        let detach = format!("detach {options}");
        prompt.assert_completes(&format!("{detach}mkfif"), &format!("{detach}mkfifo "));
        prompt.assert_completes(&format!("{detach}./uniq"), &format!("{detach}./uniquely-named "));
        prompt.assert_completes(&format!("{detach}./direc"), &format!("{detach}./directory/"));
        prompt.assert_completes(&format!("{detach}cat not"), &format!(r"{detach}cat notes\ on\ zsh.txt "));
    }
    prompt.assert_completes("detach --print", "detach --print-pid ");
    prompt.assert_completes("detach git --print", "detach git --print");
    // The control: git has no completion here.
    prompt.assert_completes("detach git cherry-p", "detach git cherry-p");
}
