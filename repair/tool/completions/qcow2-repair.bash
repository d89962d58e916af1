# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Completion for bash.

_qcow2_repair()
{
    local cur prev words cword split
    _init_completion -s || return

    case $prev in
    --output)
        mapfile -t COMPREPLY < <(compgen -W "human json" -- "$cur")
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W "raw qcow2" -- "$cur")
        return
        ;;
    --threads | --max-memory | --limit)
        return
        ;;
    --apply-plan | --journal | --undo | --salvage | --map | --passphrase-file | \
        --backing-file | --data-file)
        _filedir
        return
        ;;
    esac
    $split && return

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--dry-run --apply-plan= --leaks --likely --guess
            --discard --deep --journal= --undo= --force --salvage= --format= --keep-backing --map=
            --backing-file= --data-file= --chain --passphrase-file= --restart --output= --progress
            --quiet --limit= --threads= --max-memory= --explain-actions --help --version" -- "$cur")
        [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
        return
    fi
    _filedir
} && complete -F _qcow2_repair qcow2-repair
