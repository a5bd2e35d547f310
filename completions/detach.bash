# bash completion for detach: its options and their values, then the wrapped command as bash-completion completes it.
# Install as ~/.local/share/bash-completion/completions/detach, or source it from ~/.bashrc.
# Without bash-completion, the command completes to the names of commands, and its arguments to file names.

# The PIDs and names of jobs that $2 can be used with and that begin with $3. Where readline lists them, each has its
# command behind it.
_detach_jobs() {
    local all='' pid name state started time output command word
    local -A commands=() count=()
    [[ $2 != --log ]] || all=--all
    while IFS=$'\t' read -r pid name state started time output command; do
        [[ $all || $state == running || $state == stopped ]] || continue
        commands[$pid]=$command
        # What is shown escaped cannot be typed like that, and what looks like an option would be one.
        [[ ! $name || $name == *\\* || $name == -* || $name == [@*] ]] || commands[$name]=$command count[$name]=$((${count[$name]:-0} + 1))
    done < <("$1" --list $all 2>/dev/null)
    for word in "${!commands[@]}"; do
        # To be stopped or waited for, a job must be the only one of its name.
        if [[ $word == "$3"* ]] && { [[ $all ]] || ((${count[$word]:-1} == 1)); }; then
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
    # Every option, with the kind of its value.
    local -A takes=(
        [-F]= [--full]=
        [-o]=FILE [--output]=FILE
        [-e]=FILE [--error]=FILE
        [-i]=FILE [--input]=FILE
        [-C]=DIR [--chdir]=DIR
        [-m]=MODE [--umask]=MODE
        [--keep-fd]=N
        [--sigchld]=HOW
        [--pidfile]=FILE
        [-N]=NAME [--name]=NAME
        [-t]= [--track]=
        [--notify]=
        [-w]= [--wait]=
        [--settle]=DURATION
        [-P]= [--print-pid]=
        [--json]=
        [-q]= [--quiet]=
        [-v]= [--verbose]=
        [-h]= [--help]=
        [-V]= [--version]=
        [--list]= [--all]=
        [--log]=JOB [-f]= [--follow]=
        [--join]=JOB
        [--stop]=JOB [--grace]=DURATION [--signal]=SIG
        [--prune]=
        [--check]=PID
    )

    # Walk the words before the cursor, to learn where the command begins and which value is wanted. Readline splits
    # words at '=' and ':' too; COMP_LINE tells which pieces belong together.
    local cur=$2 rest=$COMP_LINE word='' want='' first=0 begun='' mode='' letters i
    for ((i = 0; i < COMP_CWORD; i++)); do
        word+=${COMP_WORDS[i]}
        rest=${rest#*"${COMP_WORDS[i]}"}
        [[ $rest == [[:space:]]* ]] || continue
        if ((first == 0)); then
            :
        elif [[ $want && ! ($want == @(JOB|PID) && $word == -*) ]]; then
            want=
        elif [[ $word == -- ]]; then
            begun=yes first=$((i + 1))
            break
        elif [[ $word == --* ]]; then
            want=${takes[$word]-}
            [[ ${takes[${word%%=*}]-} != @(JOB|PID) ]] || mode=${word%%=*}
        elif [[ $word == -?* ]]; then
            letters=${word#-}
            while [[ $letters && ! $want ]]; do
                want=${takes[-${letters:0:1}]-} letters=${letters:1}
            done
            [[ ! $letters ]] || want=
        elif [[ ! $mode ]]; then
            begun=yes
            break
        fi
        first=$((i + 1)) word=
    done
    if [[ ! $begun && ! $want && $word == --* ]]; then
        want=${takes[${word%%=*}]:-NOTHING}
        [[ $want != @(JOB|PID) ]] || mode=${word%%=*}
        [[ $word != --prune=* ]] || want=DAYS
        [[ $cur != '=' ]] || cur=
    elif [[ $mode && $cur != -* && ($begun || ! $want) ]]; then
        want=${takes[$mode]}
    elif [[ $want == @(JOB|PID) && $cur == -* ]]; then
        want=
    fi

    case $want in
        FILE) compopt -o default ;;
        DIR) compopt -o dirnames ;;
        MODE) COMPREPLY=($(compgen -W '022 027 077' -- "$cur")) ;;
        HOW) COMPREPLY=($(compgen -W 'default ignore' -- "$cur")) ;;
        DURATION) COMPREPLY=($(compgen -W '100ms 1s 10s' -- "$cur")) ;;
        DAYS) COMPREPLY=($(compgen -W '1d 7d 30d' -- "$cur")) ;;
        SIG) COMPREPLY=($(compgen -W 'HUP INT QUIT KILL USR1 USR2 TERM CONT STOP' -- "$cur")) ;;
        JOB) _detach_jobs "$1" "$mode" "$cur" ;;
        PID)
            _detach_jobs "$1" "$mode" "$cur"
            [[ ! $cur || $cur == *[!0-9]* ]] || COMPREPLY+=($(compgen -W "$(ps -e -o pid=)" -- "$cur"))
            ;;
        ?*) ;;
        *)
            if [[ ! $begun && $cur == -* ]]; then
                COMPREPLY=($(compgen -W "${!takes[*]}" -- "$cur"))
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
