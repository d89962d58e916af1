# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Completion for bash. Commands and their options come from the program's own help.

_qcow2_img_commands()
{
    "$1" --help 2> /dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p'
}

# The options of a command: words of its usage that begin with a dash.
_qcow2_img_options()
{
    "$1" "$2" --help 2> /dev/null | sed 's/^Usage: [^ ]* [^ ]* //; /^$/q' | grep -oE -- '--?[A-Za-z][a-z-]*=?'
    echo "--help --object --secret-fd"
}

_qcow2_img()
{
    local cur prev words cword split
    _init_completion -s || return

    if ((cword == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$(_qcow2_img_commands "$1") --help --version" -- "$cur")
        return
    fi
    case $prev in
    --output)
        mapfile -t COMPREPLY < <(compgen -W "human json" -- "$cur")
        return
        ;;
    --preallocation)
        mapfile -t COMPREPLY < <(compgen -W "off metadata falloc full" -- "$cur")
        return
        ;;
    -f | -O | -F)
        mapfile -t COMPREPLY < <(compgen -W "qcow2 raw" -- "$cur")
        return
        ;;
    -t | -T)
        mapfile -t COMPREPLY < <(compgen -W "none writeback writethrough directsync unsafe" -- "$cur")
        return
        ;;
    --size | --start-offset | --max-length | --object | --secret-fd | -g | -S | -m | -r | -s)
        return
        ;;
    esac
    $split && return

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_qcow2_img_options "$1" "${words[1]}")" -- "$cur")
        [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
        return
    fi
    _filedir
} && complete -F _qcow2_img qcow2-img
