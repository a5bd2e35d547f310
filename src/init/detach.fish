# The function detach for fish. ~/.config/fish/config.fish loads it with: detach --init fish | source
#
# 'detach %1' lets go of a job of this shell, and --check is told what only the shell knows. Every other call goes to the
# program as it was typed. The names of variables are long, because a local variable hides an exported one of its name
# from the program.

function detach --description 'Start a command that outlives the terminal, or let go of a job'
    # What kind of call it is, and its words, with the number of its process group in place of each job specification.
    set -l __detach_mode options
    set -l __detach_words
    set -l __detach_groups
    for __detach_word in $argv
        switch "$__detach_mode:$__detach_word"
            case 'options-value:*' 'jobs-value:*'
                set __detach_mode (string replace -- -value '' $__detach_mode)
            case options:--check
                set __detach_mode check
            case check:--
                set __detach_mode check-names
            case 'options:%*' 'jobs:%*' 'check:%*'
                # fish lists the newest job first: number, process group, processor time, state and command.
                set -l __detach_jobs (builtin jobs)
                set -l __detach_name (string sub --start 2 -- $__detach_word)
                switch $__detach_word
                    case % %% %+
                        set __detach_jobs $__detach_jobs[1]
                    case %-
                        set __detach_jobs $__detach_jobs[2]
                    case '*'
                        set -l __detach_pattern '^(?:[^\t]*\t){4}'
                        if string match --quiet --regex '^[0-9]+$' -- $__detach_name
                            set __detach_pattern '^'
                            set __detach_name $__detach_name\t
                        else if string match --quiet --regex '^[?]' -- $__detach_name
                            set __detach_pattern '^(?:[^\t]*\t){4}.*'
                            set __detach_name (string sub --start 2 -- $__detach_name)
                        end
                        set __detach_pattern $__detach_pattern(string escape --style=regex -- $__detach_name)
                        set __detach_jobs (string match --regex --entire -- $__detach_pattern $__detach_jobs)
                end
                if not set -q __detach_jobs[1]
                    set -l __detach_verb 'let go of'
                    test $__detach_mode = check
                    and set __detach_verb check
                    printf "detach: cannot %s '%s': not a job of this shell\n" $__detach_verb $__detach_word >&2
                    return 125
                end
                test $__detach_mode = check
                or set __detach_mode jobs
                set __detach_word (string split \t -- $__detach_jobs[1])[2]
                contains -- $__detach_word $__detach_groups
                and continue
                set -a __detach_groups $__detach_word
            case 'options:--output' 'options:--name' 'jobs:--output' 'jobs:--name'
                set __detach_mode $__detach_mode-value
            case 'options:--quiet' 'options:--verbose' 'options:--json' 'options:--output=*' 'options:--name=*' 'jobs:--*'
            case 'options:-*' 'jobs:-*'
                # After the letters q and v: nothing, or an option whose value follows in this word or in the next.
                if string match --quiet --regex '^-[qv]*[oN]$' -- $__detach_word
                    set __detach_mode $__detach_mode-value
                else if test $__detach_mode = options
                    string match --quiet --regex '^-([qv]+$|[qv]*[oN])' -- $__detach_word
                    or break
                end
            case 'options:*'
                break
            case 'jobs:*'
                printf "detach: cannot let go of '%s': not a job specification such as %%1\n" $__detach_word >&2
                return 125
        end
        set -a __detach_words $__detach_word
    end
    switch $__detach_mode
        case 'jobs*'
            command detach --pid --stay-stopped $__detach_words
            set -l __detach_status $status
            if test $__detach_status -gt 128
                # Killed, so it may not have come to continue the jobs.
                command kill -CONT -- -$__detach_groups 2>/dev/null
            end
            test $__detach_status -eq 0
            or return $__detach_status
            builtin disown $__detach_groups 2>/dev/null
            command kill -CONT -- -$__detach_groups 2>/dev/null
        case 'check*'
            status is-interactive
            and set -lx DETACH_SHELL $fish_pid exact hangup exit (builtin jobs --group)
            command detach $__detach_words
        case '*'
            command detach $argv
    end
end
