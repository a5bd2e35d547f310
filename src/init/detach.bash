# The function detach for bash. ~/.bashrc loads it with: eval "$(detach --init bash)"
#
# 'detach %1' lets go of a job of this shell, and --check is told what only the shell knows. Every other call goes to the
# program as it was typed. Commands begin with a backslash, because bash expands aliases when it reads a function; the
# names of variables are long, because a local variable hides an exported one of its name from the program.

# bash shows nowhere which jobs 'disown -h' has marked. As long as this function stands, it has marked none.
if [[ ! $(\builtin declare -F detach disown) && ! $(\builtin jobs -p) ]]; then
    function disown {
        case " $*" in
            *" -"*h*) \builtin unset -f disown ;;
        esac
        \builtin disown "$@"
    }
fi

function detach {
    # What kind of call it is, and its words, with the number of its process group in place of each job specification.
    local __detach_mode=options __detach_verb='let go of' __detach_words=() __detach_groups=() __detach_seen=' '
    local __detach_word __detach_group __detach_reason __detach_stderr __detach_status=0
    for __detach_word in "$@"; do
        case $__detach_mode:$__detach_word in
            options-value:* | jobs-value:*) __detach_mode=${__detach_mode%-value} ;;
            options:--check) __detach_mode=check __detach_verb=check ;;
            check:--) __detach_mode=check-names ;;
            options:%* | jobs:%* | check:%*)
                [[ $__detach_mode == check ]] || __detach_mode=jobs
                __detach_group=$(\builtin jobs -p -- "$__detach_word" 2> /dev/null) || __detach_group=''
                if [[ ! $__detach_group ]]; then
                    __detach_reason='not a job of this shell, or more than one'
                    [[ $BASH_SUBSHELL == 0 ]] || __detach_reason='in a pipeline or subshell, bash does not know its jobs'
                    \builtin printf "detach: cannot %s '%s': %s\n" \
                        "$__detach_verb" "$__detach_word" "$__detach_reason" >&2
                    return 125
                fi
                [[ $__detach_seen != *" $__detach_group "* ]] || continue
                __detach_seen+="$__detach_group "
                __detach_groups+=("$__detach_group")
                __detach_word=$__detach_group
                ;;
            options:--output | options:--name | jobs:--output | jobs:--name) __detach_mode+=-value ;;
            options:--quiet | options:--verbose | options:--json | options:--output=* | options:--name=*) ;;
            options:-[!-]* | jobs:-[!-]*)
                # After the letters q and v: nothing, or an option whose value follows in this word or in the next.
                __detach_group=${__detach_word#-}
                __detach_group=${__detach_group#"${__detach_group%%[!qv]*}"}
                case $__detach_mode:$__detach_group in
                    *:[oN]) __detach_mode+=-value ;;
                    *: | *:[oN]* | jobs:*) ;;
                    *) break ;;
                esac
                ;;
            options:*) break ;;
            jobs:-*) ;;
            jobs:*)
                \builtin printf "detach: cannot let go of '%s': not a job specification such as %%1\n" \
                    "$__detach_word" >&2
                return 125
                ;;
        esac
        __detach_words+=("$__detach_word")
    done
    case $__detach_mode in
        jobs*)
            # Not in a loop: bash ends the loops that it is in when it sees a process of a job stopped by SIGTSTP. So the
            # processes stay stopped until their jobs have left the table. Only the program has the real stderr: bash
            # would report there that the jobs are stopped.
            {
                (\builtin exec detach --pid --stay-stopped "${__detach_words[@]}" 2>&"$__detach_stderr") && {
                    \builtin disown "${__detach_groups[@]}"
                    \builtin kill -CONT -- "${__detach_groups[@]/#/-}"
                    \builtin true
                }
            } {__detach_stderr}>&2 2> /dev/null || __detach_status=$?
            \exec {__detach_stderr}>&-
            if ((__detach_status > 128)); then
                # Killed, so it may not have come to continue the jobs.
                \builtin kill -CONT -- "${__detach_groups[@]/#/-}" 2> /dev/null
            fi
            return "$__detach_status"
            ;;
        check*)
            # A subshell has no job table, or a copy of it.
            if [[ $- == *i* && $BASH_SUBSHELL == 0 ]]; then
                __detach_word="$$ hangup"
                ! \builtin shopt -q huponexit login_shell || __detach_word+=' exit'
                [[ $(\builtin declare -f disown) != *'unset -f disown'* ]] || __detach_word+=' exact'
                DETACH_SHELL="$__detach_word $(\builtin jobs -p)" \builtin command detach "${__detach_words[@]}"
            else
                \builtin command detach "${__detach_words[@]}"
            fi
            ;;
        *) \builtin command detach "$@" ;;
    esac
}
