# bash completion for detach: its options and modes, then the wrapped command as bash-completion completes it.
# Install as ~/.local/share/bash-completion/completions/detach, or source it from ~/.bashrc.
# Without bash-completion, the command completes to the names of commands, and its arguments to file names.

# The jobs that begin with $3, for a word of the kind $2. Where readline lists them, each has its command behind it.
_detach_jobs() {
    local all='' pid name state started time output command word
    local -A commands=() count=()
    [[ $2 != LOG ]] || all=--all
    while IFS=$'\t' read -r pid name state started time output command; do
        [[ $all || $state == running* || $state == stopped ]] || continue
        [[ $2 == NAME ]] || commands[$pid]=$command
        # What is shown escaped cannot be typed like that, and what begins with a dash would be taken for an option.
        [[ ! $name || $name == *\\* || $name == -* || $name == [@*] ]] || commands[$name]=$command count[$name]=$((${count[$name]:-0} + 1))
    done < <("$1" --list $all 2>/dev/null)
    for word in "${!commands[@]}"; do
        # To be stopped or waited for, a job must be the only one of its name.
        if [[ $word == "$3"* ]] && { [[ $2 == @(LOG|NAME) ]] || ((${count[$word]:-1} == 1)); }; then
            COMPREPLY+=("$word")
        fi
    done
    local is_list=$((COMP_TYPE == 63 || COMP_TYPE == 33 || COMP_TYPE == 64)) i
    for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do
        if ((is_list && ${#COMPREPLY[@]} > 1)); then
            COMPREPLY[i]+="  (${commands[${COMPREPLY[i]}]:0:50})"
        else
            printf -v "COMPREPLY[$i]" %q "${COMPREPLY[i]}"
        fi
    done
}

_detach() {
    # Every option, after the mode to which it belongs, with the kind of its value.
    local -A takes=(
        [-F]= [--full]=
        [-o]=FILE [--output]=FILE
        [-e]=FILE [--error]=FILE
        [-i]=FILE [--input]=FILE
        [-C]=DIR [--chdir]=DIR
        [-m]=MASK [--umask]=MASK
        [--keep-fd]=NUMBER
        [--sigchld]=HOW
        [--pidfile]=FILE
        [-N]=WORD [--name]=WORD
        [-t]= [--track]=
        [--notify]=
        [-w]= [--wait]=
        [--settle]=TIME
        [--scope]=
        [-P]= [--print-pid]=
        [--json]=
        [-V]= [--version]=
        ['--list --all']= ['--list --json']=
        ['--log -f']= ['--log --follow']= ['--log -n']=NUMBER ['--log --lines']=NUMBER
        ['--stop --all']= ['--stop --grace']=TIME ['--stop --signal']=SIG
        ['--prune --dry-run']=
        ['--pid -o']=FILE ['--pid --output']=FILE ['--pid -N']=WORD ['--pid --name']=WORD ['--pid --stay-stopped']=
        ['--check --json']=
    )
    # The kind of the words after each mode.
    local -A words=([--list]=NOTHING [--log]=LOG [--join]=JOB [--stop]=JOB [--prune]=AGE [--pid]=PROCESS [--check]=PID
        [--init]=SHELL)
    local cur=$2 rest=$COMP_LINE word='' want='' first=0 begun='' mode='' ended='' letters offers='' i
    for word in "${!words[@]}" ''; do
        for i in -q --quiet -v --verbose -h --help; do
            takes[${word:+$word }$i]=
        done
    done
    word=

    # Walk the words before the cursor, to learn the mode, where the command begins, and which value is wanted. Readline
    # splits words at '=' and ':' too; COMP_LINE tells which pieces belong together.
    for ((i = 0; i < COMP_CWORD; i++)); do
        word+=${COMP_WORDS[i]}
        rest=${rest#*"${COMP_WORDS[i]}"}
        [[ $rest == [[:space:]]* ]] || continue
        if ((first == 0)); then
            :
        elif [[ $want ]]; then
            want=
        elif [[ $ended ]]; then
            :
        elif [[ $word == -- ]]; then
            ended=yes
            if [[ ! $mode ]]; then
                begun=yes first=$((i + 1))
                break
            fi
        elif [[ ! $mode && ${words[$word]-} ]]; then
            mode=$word
        elif [[ $word == --* ]]; then
            want=${takes[${mode:+$mode }$word]-}
            [[ $mode$word != --stop--all ]] || words[--stop]=NAME
        elif [[ $word == -?* ]]; then
            letters=${word#-}
            while [[ $letters && ! $want ]]; do
                want=${takes[${mode:+$mode }-${letters:0:1}]-} letters=${letters:1}
            done
            [[ ! $letters ]] || want=
        elif [[ ! $mode ]]; then
            begun=yes
            break
        fi
        first=$((i + 1)) word=
    done
    if [[ ! $begun && ! $want && $word == --* ]]; then
        # The value of --OPTION=VALUE.
        want=${takes[${mode:+$mode }${word%%=*}]:-NOTHING}
        [[ $cur != '=' ]] || cur=
    elif [[ $mode && ! $want && ($cur != -* || $ended) ]]; then
        want=${words[$mode]}
    fi

    case $want in
        FILE) compopt -o default ;;
        DIR) compopt -o dirnames ;;
        MASK) COMPREPLY=($(compgen -W '022 027 077' -- "$cur")) ;;
        HOW) COMPREPLY=($(compgen -W 'default ignore' -- "$cur")) ;;
        TIME) COMPREPLY=($(compgen -W '100ms 1s 5s 30s' -- "$cur")) ;;
        AGE) COMPREPLY=($(compgen -W '0 1d 7d 30d' -- "$cur")) ;;
        SIG) COMPREPLY=($(compgen -W 'HUP INT QUIT KILL USR1 USR2 TERM CONT STOP' -- "$cur")) ;;
        LOG | JOB | NAME) _detach_jobs "$1" "$want" "$cur" ;;
        PID)
            _detach_jobs "$1" "$want" "$cur"
            [[ ! $cur || $cur == *[!0-9]* ]] || COMPREPLY+=($(compgen -W "$(ps -e -o pid=)" -- "$cur"))
            ;;
        PROCESS) COMPREPLY=($(compgen -W "$(ps -U "$EUID" -o pid=)" -- "$cur")) ;;
        SHELL) COMPREPLY=($(compgen -W 'bash zsh fish' -- "$cur")) ;;
        ?*) ;;
        *)
            if [[ $cur == %* ]] && ((COMP_CWORD == first)) && declare -F detach >/dev/null; then
                # The function of --init takes jobs of the shell, by number and by name.
                while IFS='[]' read -r word i word; do
                    [[ ! $i ]] || offers+=" %$i"
                done <<< "$(jobs)"
                COMPREPLY=($(compgen -W "$offers" -- "$cur") $(compgen -P % -A job -- "${cur#%}"))
            elif [[ ! $begun && $cur == -* ]]; then
                for word in "${!takes[@]}"; do
                    if [[ $mode && $word == "$mode "* ]]; then
                        offers+=" ${word#* }"
                    elif [[ ! $mode && $word != *' '* ]]; then
                        offers+=" $word"
                    fi
                done
                [[ $mode ]] || offers+=" ${!words[*]}"
                COMPREPLY=($(compgen -W "$offers" -- "$cur"))
            elif declare -F _comp_command_offset >/dev/null; then # bash-completion 2.12 and later
                _comp_command_offset "$first"
            elif declare -F _command_offset >/dev/null; then
                _command_offset "$first"
            elif ((COMP_CWORD > first)) || [[ $cur == */* ]]; then
                compopt -o default
            else
                COMPREPLY=($(compgen -c -- "$cur"))
            fi
            ;;
    esac
} && complete -F _detach detach
