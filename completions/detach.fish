# fish completion for detach: its options and their values, then the wrapped command as fish completes it.
# Install as ~/.config/fish/completions/detach.fish.

# Whether the command has begun: the options end at the first word that is not one.
function __detach_begun
    set -l typed (commandline -opc)
    argparse --stop-nonopt $__detach_options -- $typed[2..] 2>/dev/null
    and set -q argv[1]
end

# Not __fish_complete_subcommand: it would take the FILE of '-qo FILE' for the command.
function __detach_command
    set -l typed (commandline -opc)
    argparse --stop-nonopt $__detach_options -- $typed[2..] 2>/dev/null
    or return
    if set -q _flag_log
        __detach_jobs --all
        return
    else if set -q _flag_check
        __detach_jobs
        __fish_complete_pids
        return
    else if set -q _flag_join || set -q _flag_stop
        __detach_jobs
        return
    end
    set -l line
    for word in $argv
        set -a line (string escape -- $word)
    end
    complete --do-complete="$line "(commandline -ct)
end

# The PIDs and names of jobs, each with its command. --all: of those that have ended as well.
function __detach_jobs
    set -l program (commandline -opc)[1]
    set -l names
    set -l lines
    for job in ($program --list $argv 2>/dev/null)
        set -l fields (string split \t -- $job)
        contains -- --all $argv; or contains -- $fields[3] running stopped; or continue
        printf '%s\t%s\n' $fields[1] $fields[7]
        # What is shown escaped cannot be typed like that, and what looks like an option would be one.
        string match --quiet --regex -- '^-|\\\\' $fields[2]; and continue
        set -a names $fields[2]
        set -a lines $fields[2]\t$fields[7]
    end
    # To be stopped or waited for, a job must be the only one of its name.
    for index in (seq (count $names))
        set -l pattern '^'(string escape --style=regex -- $names[$index])'$'
        contains -- --all $argv; or test (count (string match --regex -- $pattern $names)) = 1; or continue
        echo -- $lines[$index]
    end
end

# __fish_complete_directories alone would repeat the '--chdir=' of '--chdir=DIR'.
function __detach_directories
    __fish_complete_directories (commandline -ct | string replace --regex '^--[^=]*=' '')
end

# An option as argparse takes it, then how 'complete' completes it.
function __detach_option --argument-names option
    set -a __detach_options $option
    set -l names (string split / -- (string trim --right --chars '=?' -- $option))
    set -l flags --long-option $names[-1]
    set -q names[2]
    and set -a flags --short-option $names[1]
    complete -c detach -n 'not __detach_begun' $flags $argv[2..]
end

set -g __detach_options
complete -c detach -f -a '(__detach_command)'
__detach_option F/full -d 'Perform the complete daemon sequence'
__detach_option o/output= -rF -d 'Append stdout and stderr to FILE'
__detach_option e/error= -rF -d 'Append stderr to FILE'
__detach_option i/input= -rF -d 'Read stdin from FILE'
__detach_option C/chdir= -xa '(__detach_directories)' -d 'Start in DIR'
__detach_option m/umask= -xa '022 027 077' -d 'File mode creation mask, in octal'
__detach_option keep-fd= -x -d 'Keep descriptor N open'
__detach_option sigchld= -xa 'default ignore' -d 'Disposition of SIGCHLD'
__detach_option pidfile= -rF -d 'Write the PID to FILE, locked while COMMAND lives'
__detach_option N/name= -x -d 'Name the job'
__detach_option t/track -d 'Keep a process that records how COMMAND ends'
__detach_option notify -d 'As --track, and show a notification at the end'
__detach_option w/wait -d 'Stay to the end, exit as COMMAND'
__detach_option settle= -xa '100ms 1s 10s' -d 'Stay that long, to tell if COMMAND fails at once'
__detach_option P/print-pid -d 'Print the PID alone on stdout'
__detach_option json -d 'Print on stdout, as JSON, the record or the result'
__detach_option q/quiet -d 'Say nothing but errors'
__detach_option v/verbose -d 'Name every step'
__detach_option h/help -d 'Print this help'
__detach_option V/version -d 'Print the version'
__detach_option list -d 'List what runs, and the last ten that ended'
__detach_option all -d 'With --list: all that ended'
__detach_option log= -xa '(__detach_jobs --all)' -d 'Write the output of JOB to stdout'
__detach_option f/follow -d 'With --log: go on until JOB ends'
__detach_option join= -xa '(__detach_jobs)' -d 'Wait until JOBs end, exit as the last of them'
__detach_option stop= -xa '(__detach_jobs)' -d 'End JOBs: SIGTERM, and SIGKILL for what is left'
__detach_option grace= -xa '1s 5s 30s' -d 'With --stop: the time before SIGKILL'
__detach_option signal= -xa 'HUP INT QUIT KILL USR1 USR2 TERM CONT STOP' -d 'With --stop: send SIG, and nothing more'
__detach_option check= -xa '(__detach_jobs; __fish_complete_pids)' -d 'Tell whether a process would survive, and why'
__detach_option 'prune=?' -d 'Remove the records and logs of what ended'
