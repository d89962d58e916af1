# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Completion for bash. The ids of problems come from the program itself.

_qcow2_check()
{
    local cur prev words cword split
    _init_completion -s || return

    case $prev in
    --output)
        mapfile -t COMPREPLY < <(compgen -W "human json" -- "$cur")
        return
        ;;
    --explain)
        mapfile -t COMPREPLY < <(compgen -W \
            "$("$1" --list-problems 2>/dev/null | awk '{ print $2 }')" -- "$cur")
        return
        ;;
    -f | --format)
        mapfile -t COMPREPLY < <(compgen -W "qcow2" -- "$cur")
        return
        ;;
    --owner | --limit | --jobs | --threads | --max-memory)
        return
        ;;
    esac
    $split && return

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--output= --deep --chain --limit= --owner= --explain=
            --list-problems --progress --quiet --force-share --jobs= --threads= --max-memory=
            --help --version" -- "$cur")
        [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
        return
    fi
    _filedir
} && complete -F _qcow2_check qcow2-check
