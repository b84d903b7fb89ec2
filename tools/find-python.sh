#!/bin/sh
# Print a Python that can make a virtual environment for this package, or say what to
# install and fail. Usage: find-python.sh [PYTHON]; a PYTHON named by the user is taken
# or refused, never replaced by another.
set -eu

oldest=3.11

# The answer is printed, not an exit status: any program may exit with 0.
is_recent() {
    [ "$("$1" -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)" = True ]
}

# Debian and Ubuntu ship venv without ensurepip, which a separate package holds.
can_make_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo "

refuse() {
    echo "$1" >&2
    echo "On Debian or Ubuntu install it with:" >&2
    echo "  $2" >&2
    exit 1
}

if [ -n "${1:-}" ]; then
    found=$1
    command -v "$found" >/dev/null 2>&1 || {
        echo "PYTHON=$found: no such program." >&2
        exit 1
    }
    is_recent "$found" || {
        echo "PYTHON=$found is not a Python >= $oldest." >&2
        exit 1
    }
else
    found=""
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 && is_recent "$candidate"; then
            found=$candidate
            break
        fi
    done
fi

if [ -z "$found" ]; then
    if command -v python3 >/dev/null 2>&1; then
        # An older release: its own python3 is too old, python3.11 lies beside it.
        refuse "Python >= $oldest is needed, python3 is $(python3 --version 2>&1)." \
            "${as_root}apt-get install -y python3.11 python3.11-venv"
    fi
    refuse "Python >= $oldest is needed, none was found." \
        "${as_root}apt-get install -y python3 python3-venv"
fi

if ! can_make_venv "$found"; then
    version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    refuse "$found (Python $version) cannot make virtual environments." \
        "${as_root}apt-get install -y python$version-venv"
fi

command -v "$found"
