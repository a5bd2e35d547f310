# The function detach for zsh. ~/.zshrc loads it with: eval "$(detach --init zsh)"
#
# 'detach %1' lets go of a job of this shell, and --check is told what only the shell knows. Every other call goes to the
# program as it was typed. The function is read without aliases. Its inner part runs with default options, its outer
# part, which calls the program, with those of the user. The names of variables are long, because a local variable hides
# an exported one of its name from the program.
() {
    \builtin emulate -L zsh -o no_aliases
    \builtin eval "$1"
} '
function detach {
    # What kind of call it is, and its words, with a PID in place of each job specification.
    local -a __detach_words __detach_jobs __detach_groups
    local __detach_mode=options __detach_told
    () {
        builtin emulate -L zsh
        builtin zmodload -i zsh/parameter
        local word letters verb="let go of"
        local -a numbers
        for word; do
            case $__detach_mode:$word in
                ((options|jobs)-value:*) __detach_mode=${__detach_mode%-value} ;;
                (options:--check) __detach_mode=check verb=check ;;
                (check:--) __detach_mode=check-names ;;
                ((options|jobs|check):%*)
                    [[ $__detach_mode == check ]] || __detach_mode=jobs
                    case $word in
                        (%|%%|%+) numbers=(${(k)jobstates[(R)*:+:*]}) ;;
                        (%-) numbers=(${(k)jobstates[(R)*:-:*]}) ;;
                        (%<->) numbers=(${(k)jobstates[(I)${word#%}]}) ;;
                        # The newest of several, as zsh does.
                        (%\?*) numbers=(${(kOn)jobtexts[(R)*${(b)word#%\?}*]}) ;;
                        (*) numbers=(${(kOn)jobtexts[(R)${(b)word#%}*]}) ;;
                    esac
                    if [[ -z $numbers[1] ]]; then
                        builtin printf "detach: cannot %s \047%s\047: not a job of this shell\n" $verb "$word" >&2
                        __detach_mode=failed
                        return 0
                    fi
                    [[ " ${(j: :)__detach_jobs} " != *" %$numbers[1] "* ]] || continue
                    word=${${jobstates[$numbers[1]]#*:*:}%%=*}
                    __detach_jobs+=(%$numbers[1])
                    __detach_groups+=($word)
                    ;;
                ((options|jobs):(--output|--name)) __detach_mode+=-value ;;
                (options:(--quiet|--verbose|--json|(--output|--name)=*)) ;;
                ((options|jobs):-[^-]*)
                    # After the letters q and v: nothing, or an option whose value follows in this word or in the next.
                    letters=${word#-}
                    case $__detach_mode:${letters#${letters%%[^qv]*}} in
                        (*:[oN]) __detach_mode+=-value ;;
                        (*:|*:[oN]*|jobs:*) ;;
                        (*) return 0 ;;
                    esac
                    ;;
                (options:*) return 0 ;;
                (jobs:-*) ;;
                (jobs:*)
                    builtin printf "detach: cannot let go of \047%s\047: not a job specification such as %%1\n" \
                        "$word" >&2
                    __detach_mode=failed
                    return 0
                    ;;
            esac
            __detach_words+=("$word")
        done
        # Each is STATE:MARK:PID=STATE, with a PID=STATE for each process.
        __detach_told=${(j: :)${(v)jobstates#*:*:}%%=*}
    } "$@"
    case "$__detach_mode" in
        (failed) return 125 ;;
        (jobs*)
            # With auto_continue, disown continues the jobs. That they are stopped is not reported: neither at once, nor
            # by the next job command, which is what notify and no_notify mean.
            builtin setopt local_options auto_continue no_notify
            builtin command detach --pid --stay-stopped "${__detach_words[@]}"
            __detach_told=$?
            if (( __detach_told > 128 )); then
                # Killed, so it may not have come to continue the jobs.
                builtin kill -CONT -- "${__detach_groups[@]/#/-}" 2> /dev/null
            fi
            (( __detach_told == 0 )) || return "$__detach_told"
            builtin setopt notify
            builtin disown "${__detach_jobs[@]}"
            builtin kill -CONT -- "${__detach_groups[@]/#/-}" 2> /dev/null
            builtin true
            ;;
        (check*)
            # A subshell has a copy of the job table, which need not be complete.
            if [[ -o interactive && "$ZSH_SUBSHELL" == 0 ]]; then
                __detach_told="$$ exact $__detach_told"
                [[ ! -o hup ]] || __detach_told="$__detach_told hangup exit"
                DETACH_SHELL="$__detach_told" builtin command detach "${__detach_words[@]}"
            else
                builtin command detach "${__detach_words[@]}"
            fi
            ;;
        (*) builtin command detach "$@" ;;
    esac
}
'
