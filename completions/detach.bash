# bash completion for detach: its options and their values, then the wrapped command as bash-completion completes it.
# Install as ~/.local/share/bash-completion/completions/detach, or source it from ~/.bashrc.
# Without bash-completion, the command completes to the names of commands, and its arguments to file names.

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
        [-w]= [--wait]=
        [--settle]=DURATION
        [-P]= [--print-pid]=
        [--json]=
        [-q]= [--quiet]=
        [-v]= [--verbose]=
        [-h]= [--help]=
        [-V]= [--version]=
    )

    # Walk the words before the cursor, to learn where the command begins and which value is wanted. Readline splits
    # words at '=' and ':' too; COMP_LINE tells which pieces belong together.
    local cur=$2 rest=$COMP_LINE word='' want='' first=0 begun='' letters i
    for ((i = 0; i < COMP_CWORD; i++)); do
        word+=${COMP_WORDS[i]}
        rest=${rest#*"${COMP_WORDS[i]}"}
        [[ $rest == [[:space:]]* ]] || continue
        if ((first == 0)); then
            :
        elif [[ $want ]]; then
            want=
        elif [[ $word == -- ]]; then
            begun=yes first=$((i + 1))
            break
        elif [[ $word == --* ]]; then
            want=${takes[$word]-}
        elif [[ $word == -?* ]]; then
            letters=${word#-}
            while [[ $letters && ! $want ]]; do
                want=${takes[-${letters:0:1}]-} letters=${letters:1}
            done
            [[ ! $letters ]] || want=
        else
            begun=yes
            break
        fi
        first=$((i + 1)) word=
    done
    if [[ ! $begun && ! $want && $word == --* ]]; then
        want=${takes[${word%%=*}]:-NOTHING}
        [[ $cur != '=' ]] || cur=
    fi

    case $want in
        FILE) compopt -o default ;;
        DIR) compopt -o dirnames ;;
        MODE) COMPREPLY=($(compgen -W '022 027 077' -- "$cur")) ;;
        HOW) COMPREPLY=($(compgen -W 'default ignore' -- "$cur")) ;;
        DURATION) COMPREPLY=($(compgen -W '100ms 1s 10s' -- "$cur")) ;;
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
