# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What a report of a failed run says, as two lines: the cause, by which failures are told apart, and
# a name made of it. Numbers, addresses and lines are not part of it: they change with the input, and
# with the next edit of the source.

# Numbers become N, those in names like l2 do not.
function without_numbers(text,    words, count, i) {
    gsub(/0x[0-9a-f]+/, "N", text)
    count = split(text, words, " ")
    text = ""
    for (i = 1; i <= count; i++) {
        if (words[i] ~ /^[^A-Za-z]*[0-9]/)
            gsub(/[0-9]+/, "N", words[i])
        text = text (i > 1 ? " " : "") words[i]
    }
    return text
}

# What a Q2_REQUIRE says: "HARNESS: FILE:LINE: CONDITION does not hold: WORDS".
!requirement && match($0, /[^ ]+\.[ch]:[0-9]+: .* does not hold: /) {
    where = substr($0, RSTART, RLENGTH)
    words = substr($0, RSTART + RLENGTH)
    sub(/:[0-9]+: .*/, "", where)
    sub(/.*\//, "", where)
    words = without_numbers(words)
    requirement = where ": " words
    name = words
}

/ERROR: AddressSanitizer:/ && !kind {
    kind = $0
    sub(/.*AddressSanitizer: /, "", kind)
    sub(/[ :].*/, "", kind)
}
/ERROR: LeakSanitizer:/ && !kind { kind = "leak" }
/: runtime error: / && !kind {
    kind = $0
    sub(/.*runtime error: /, "", kind)
    gsub(/-?(0x[0-9a-f]+|[0-9]+)/, "N", kind)
    sub(/ [^ ]+ cannot be represented.*| (of|for) type .*| for N-bit type .*/, "", kind)
}

# The product's functions on the stack that is printed first, without those of its callers that the
# harness is made of; a recursion counts once.
/^ *#[0-9]+ 0x/ {
    number = $1
    sub(/.*#/, "", number)
    if (number == 0)
        stacks++
    if (stacks > 1 || !match($0, /\/(core|checker|repair|corpus|fuzz)\/[^ ]*\.[ch](:|$)/))
        next
    file = substr($0, RSTART + 1, RLENGTH - 1)
    sub(/:$/, "", file)
    if ($4 == last || file ~ /^fuzz\/(engine|support\/cursor)/)
        next
    last = $4
    all[++frames] = file ":" $4
    functions[frames] = $4
}

END {
    if (requirement) {
        print requirement
    } else if (hang) {
        # Where it was interrupted is chance; what was asked for is not.
        from = frames > 3 ? frames - 2 : 1
        cause = "hang"
        for (i = from; i <= frames; i++)
            cause = cause " " all[i]
        print cause
        name = "hang " functions[frames > 1 ? frames - 1 : 1]
    } else {
        if (!kind)
            kind = "died"
        cause = kind
        for (i = 1; i <= frames && i <= 3; i++)
            cause = cause " " all[i]
        print cause
        name = kind " " functions[1]
    }
    name = tolower(name)
    gsub(/[^a-z0-9]+/, "-", name)
    name = substr(name, 1, 60)
    gsub(/^-+|-+$/, "", name)
    print name
}
