#!/bin/sh
# Run a command on a virtual display of its own, so that windows of tests appear nowhere
# and need no screen. Usage: with-display.sh COMMAND [ARGUMENT ...]. What that takes is
# installed where this may be done without asking (Debian or Ubuntu, as root); else the
# one line that installs it is printed.
set -eu

# Elsewhere the desktop itself is the display.
[ "$(uname)" = Linux ] || exec "$@"

packages="xvfb xauth libegl1 libgl1 libopengl0 libgl1-mesa-dri libdbus-1-3 \
libfontconfig1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 \
libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 \
libxcb-xkb1 fonts-dejavu-core"

# One library stands for the others: they come by the same line.
is_complete() {
    command -v xvfb-run >/dev/null 2>&1 && command -v xauth >/dev/null 2>&1 &&
        has libxcb-cursor.so.0 && has libxkbcommon-x11.so.0 && has libEGL.so.1
}

has() {
    [ -n "$(find /usr/lib /usr/lib64 -name "$1" 2>/dev/null)" ]
}

if ! is_complete; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing what windows without a screen need ..." >&2
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        # shellcheck disable=SC2086  # a list
        apt-get install -y --no-install-recommends $packages >/dev/null 2>&1 || {
            apt-get update >/dev/null
            # shellcheck disable=SC2086
            apt-get install -y --no-install-recommends $packages >/dev/null
        }
    fi
fi

if ! is_complete; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo "
    echo "Tests of the window need a virtual display, which is not installed." >&2
    echo "On Debian or Ubuntu install it with:" >&2
    echo "  ${as_root}apt-get install -y --no-install-recommends $packages" >&2
    exit 1
fi

exec xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24" "$@"
