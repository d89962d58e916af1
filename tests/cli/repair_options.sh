#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The command line of qcow2-repair itself: help, version, errors, and that the help, the parser, the
# man page and the completions know the same options.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
make_images
page=$here/../../repair/tool/qcow2-repair.1
completions=$here/../../repair/tool/completions

mend 0 --help
out_has "Usage: qcow2-repair"
err_is_empty
awk 'length > 80 { exit 1 } END { exit NR > 24 }' out || fail "--help does not fit a screen"
cp out help
mend 0 -h
mend 0 --version
[[ $(< out) =~ ^qcow2-repair\ \(qcow2kit\)\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "--version"
mend 0 -V
mend 0 --explain-actions
out_has "free-leaks"
out_has "Frees clusters that provably nothing can refer to."

# Every error is one status and a line that names its cause; nothing happens.
before=$(digest damaged.qcow2)
while IFS='|' read -r words message; do
    # shellcheck disable=SC2086
    mend 1 $words
    out_is_empty
    err_has "qcow2-repair: "
    err_has "$message"
done << 'END'
|no image is named
--no-such-option damaged.qcow2|--no-such-option
damaged.qcow2 clean.qcow2|one image at a time
--output=xml damaged.qcow2|neither human nor json
--threads=0 damaged.qcow2|--threads
--max-memory=lots damaged.qcow2|--max-memory
--likely --guess damaged.qcow2|do not go together
--leaks --guess damaged.qcow2|do not go together
--dry-run --journal=j damaged.qcow2|--dry-run writes no journal
--apply-plan=p --guess damaged.qcow2|from the plan
--apply-plan=p --dry-run damaged.qcow2|from the plan
--apply-plan=p --discard damaged.qcow2|from the plan
--apply-plan=p damaged.qcow2|p: cannot be opened
--force damaged.qcow2|--force is for
--format=raw damaged.qcow2|alone
--restart damaged.qcow2|alone
--salvage=o --format=vmdk damaged.qcow2|neither raw nor qcow2
--salvage=o --keep-backing damaged.qcow2|--format=qcow2
--salvage=o --likely damaged.qcow2|for repairs alone
--salvage=o --undo=j damaged.qcow2|do not go together
--undo=j --dry-run damaged.qcow2|for repairs alone
--undo=j|does not say by its name
--undo=damaged.qcow2.qcow2kit-undo|cannot be opened
--undo=j -p damaged.qcow2|for repairs and salvages alone
--undo=j --threads=1 damaged.qcow2|for repairs and salvages alone
--undo=j --max-memory=64M damaged.qcow2|for repairs and salvages alone
--explain-actions damaged.qcow2|takes no image
--journal=damaged.qcow2 damaged.qcow2|is the image itself
--journal=./damaged.qcow2 damaged.qcow2|is the image itself
--undo=damaged.qcow2 damaged.qcow2|is the image itself
--dry-run absent.qcow2|cannot be opened
END
same damaged.qcow2 "$before"
lists damaged.qcow2

mend 63 --dry-run other.txt
err_has "other.txt"
mend 63 other.txt
lists other.txt

# ---- help, parser, man page and completions ----

grep -oE -- '--[a-z-]+' help | sort -u > listed
while read -r option; do
    "$repair" "$option" > out 2> err < /dev/null || true
    ! grep -q 'unrecognized option' err || fail "$option of the help is unknown"
done < listed
# The page says "Fl -leaks | -likely" and "Fl h , -help".
grep -oE '(\bFl|[,|]) -[a-z][a-z-]*' "$page" | sed 's/.* /-/' | sort -u > described
diff listed described > differences || fail "help and man page: $(< differences)"
for file in qcow2-repair.bash _qcow2-repair; do
    while read -r option; do
        grep -qF -- "$option" "$completions/$file" || fail "$file lacks $option"
    done < listed
done
