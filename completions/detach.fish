# fish completion for detach: its options and modes, then the wrapped command as fish completes it.
# Install as ~/.config/fish/completions/detach.fish.

# The mode that was typed; it comes after -q, -v and --json alone.
function __detach_mode
    for word in (commandline -opc)[2..]
        if contains -- $word $__detach_modes
            echo -- $word
            return
        end
        string match --quiet --regex -- '^(-[qv]+|--quiet|--verbose|--json)$' $word
        or return
    end
end

function __detach_in_mode
    test "$(__detach_mode)" = $argv[1]
end

# Whether an option of a start can follow: neither a mode nor the command has been typed. The options end at the first
# word that is not one.
function __detach_in_start
    test -z "$(__detach_mode)"
    or return
    set -l typed (commandline -opc)
    not argparse --stop-nonopt $__detach_options -- $typed[2..] 2>/dev/null
    or not set -q argv[1]
end

# The words that are no options: of a mode, or those of the command. Not __fish_complete_subcommand: it would take the
# FILE of '-qo FILE' for the command.
function __detach_words
    switch "$(__detach_mode)"
        case --list
        case --log
            __detach_jobs --all
        case --join
            __detach_jobs
        case --stop
            if contains -- --all (commandline -opc)
                __detach_jobs --names
            else
                __detach_jobs
            end
        case --prune
            printf '%s\n' 0 1d 7d 30d
        case --pid
            ps -U (id -u) -o pid=,comm= | string replace --regex '^ *([0-9]+) +' '$1\t'
        case --check
            __detach_jobs
            __fish_complete_pids
        case --init
            printf '%s\n' bash zsh fish
        case '*'
            set -l typed (commandline -opc)
            argparse --stop-nonopt $__detach_options -- $typed[2..] 2>/dev/null
            or return
            # The function of --init takes jobs of the shell.
            if not set -q argv[1]; and string match --quiet -- '%*' (commandline -ct); and functions --query detach
                builtin jobs | string replace --regex '^([0-9]+)\t(?:[^\t]*\t){3}' '%$1\t'
                return
            end
            set -l line
            for word in $argv
                set -a line (string escape -- $word)
            end
            complete --do-complete="$line "(commandline -ct)
    end
end

# The PIDs and names of jobs, each with its command. --all: of those that ended as well. --names: names alone.
function __detach_jobs
    set -l program (commandline -opc)[1]
    set -l names
    set -l lines
    for job in ($program --list (string match -- --all $argv) 2>/dev/null)
        set -l fields (string split \t -- $job)
        contains -- --all $argv
        or string match --quiet --regex -- '^(running|stopped)' $fields[3]
        or continue
        contains -- --names $argv
        or printf '%s\t%s\n' $fields[1] $fields[7]
        # What is shown escaped cannot be typed like that, and what begins with a dash would be taken for an option.
        string match --quiet --regex -- '^-|\\\\' $fields[2]; and continue
        set -a names $fields[2]
        set -a lines $fields[2]\t$fields[7]
    end
    # To be stopped or waited for, a job must be the only one of its name.
    for index in (seq (count $names))
        set -l pattern '^'(string escape --style=regex -- $names[$index])'$'
        set -q argv[1]; or test (count (string match --regex -- $pattern $names)) = 1; or continue
        echo -- $lines[$index]
    end
end

# __fish_complete_directories alone would repeat the '--chdir=' of '--chdir=DIR'.
function __detach_directories
    __fish_complete_directories (commandline -ct | string replace --regex '^--[^=]*=' '')
end

# An option of a start, as argparse takes it, then how 'complete' completes it.
function __detach_option --argument-names option
    set -a __detach_options $option
    set -l names (string split / -- (string trim --right --chars = -- $option))
    set -l flags --long-option $names[-1]
    set -q names[2]
    and set -a flags --short-option $names[1]
    complete -c detach -n __detach_in_start $flags $argv[2..]
end

set -g __detach_options
set -g __detach_modes --list --log --join --stop --prune --pid --check --init
complete -c detach -f -a '(__detach_words)'
__detach_option F/full -d 'Perform the complete daemon sequence'
__detach_option o/output= -rF -d 'Append stdout and stderr to FILE'
__detach_option e/error= -rF -d 'Append stderr to FILE'
__detach_option i/input= -rF -d 'Read stdin from FILE'
__detach_option C/chdir= -xa '(__detach_directories)' -d 'Start in DIR'
__detach_option m/umask= -xa '022 027 077' -d 'Set the file mode creation mask, in octal'
__detach_option keep-fd= -x -d 'Keep descriptor N open'
__detach_option sigchld= -xa 'default ignore' -d 'Set the disposition of SIGCHLD'
__detach_option pidfile= -rF -d 'Write the PID to FILE; lock it while COMMAND lives'
__detach_option N/name= -x -d 'Name the job'
__detach_option t/track -d 'Keep a small process that records how COMMAND ended'
__detach_option notify -d 'Like --track, and show a desktop notification'
__detach_option w/wait -d 'Wait until COMMAND ends, and exit with its status'
__detach_option settle= -xa '100ms 1s 5s 30s' -d 'Wait this long for a failure'
__detach_option scope -d 'Run COMMAND in its own systemd scope'
__detach_option P/print-pid -d 'Print the PID on stdout'
__detach_option json -d 'Print the record of the job on stdout, as JSON'
__detach_option q/quiet -d 'Suppress all messages except errors'
__detach_option v/verbose -d 'Print notes even without a terminal; twice: every step'
__detach_option h/help -d 'Print help'
__detach_option V/version -d 'Print the version'

complete -c detach -n __detach_in_start -l list -d 'List the running jobs and the last ten that ended'
complete -c detach -n __detach_in_start -l log -d 'Print the output of a job'
complete -c detach -n __detach_in_start -l join -d 'Wait for jobs; exit with the status of the first that failed'
complete -c detach -n __detach_in_start -l stop -d 'Stop jobs: send SIGTERM, then SIGKILL if they keep running'
complete -c detach -n __detach_in_start -l prune -d 'Remove the records and logs of jobs that ended'
complete -c detach -n __detach_in_start -l pid -d 'Detach a job that is already running'
complete -c detach -n __detach_in_start -l check -d 'Predict whether a process would survive, and explain why'
complete -c detach -n __detach_in_start -l init -d "Print the shell function that makes 'detach %1' work"

for mode in $__detach_modes
    complete -c detach -n "__detach_in_mode $mode" -s q -l quiet -d 'Suppress all messages except errors'
    complete -c detach -n "__detach_in_mode $mode" -s v -l verbose -d 'Print notes even without a terminal; twice: every step'
    complete -c detach -n "__detach_in_mode $mode" -s h -l help -d 'Print help'
end
complete -c detach -n '__detach_in_mode --list' -l all -d 'List all jobs, not only the last ten that ended'
complete -c detach -n '__detach_in_mode --list' -l json -d 'Print the jobs as JSON, one object per line'
complete -c detach -n '__detach_in_mode --log' -s f -l follow -d 'Keep printing what is appended, until the job ends'
complete -c detach -n '__detach_in_mode --log' -s n -l lines -x -d 'Begin with the last N lines'
complete -c detach -n '__detach_in_mode --stop' -l all -d 'Stop all jobs, or all that are called NAME'
complete -c detach -n '__detach_in_mode --stop' -l grace -xa '100ms 1s 5s 30s' -d 'Send SIGKILL after this time'
complete -c detach -n '__detach_in_mode --stop' -l signal -xa 'HUP INT QUIT KILL USR1 USR2 TERM CONT STOP' \
    -d "Send only SIG, to the command's process group"
complete -c detach -n '__detach_in_mode --prune' -l dry-run -d 'Print what would be removed, but remove nothing'
complete -c detach -n '__detach_in_mode --pid' -s o -l output -rF -d 'Append the output to FILE, not to a log'
complete -c detach -n '__detach_in_mode --pid' -s N -l name -x -d 'Name the job'
complete -c detach -n '__detach_in_mode --pid' -l stay-stopped -d 'Leave the job stopped'
complete -c detach -n '__detach_in_mode --check' -l json -d 'Print the result as JSON'
