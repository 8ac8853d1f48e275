# Makes the virtual environment .venv and installs the project into it, if that is not done yet.
# Source it and call: ensure_venv [EXTRA]. EXTRA is one of setup.cfg's extras, `test` say.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Whether the program is a Python that Tandem runs on.
is_right_python() {
    "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if is_right_python "$name"; then
            echo "$name"
            return
        fi
    done
    fail "Tandem needs Python 3.11 or later, and none was found. Install one," \
        "or name it: PYTHON=/path/to/python3 $0"
}

# Run a command that takes long: its last line of output is shown while it runs, all of it if it
# fails. Interrupted, the command and what it has started end too.
patiently() {
    local what=$1 log=$venv/install.log child line shown=-5
    shift
    : >"$log"
    set -m # in a process group of its own, to be ended as a whole
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    set +m
    trap "kill -- -$child 2>/dev/null || true" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    echo "$what ..." >&2
    SECONDS=0
    while kill -0 "$child" 2>/dev/null; do
        line=$(tail -n 1 "$log")
        if [ -t 2 ]; then
            printf '\r\033[K  %3d s  %.80s' "$SECONDS" "$line" >&2
        elif ((SECONDS - shown >= 10 && SECONDS > 0)); then
            shown=$SECONDS
            printf '  %3d s  %.80s\n' "$SECONDS" "$line" >&2
        fi
        sleep 0.2
    done
    [ ! -t 2 ] || printf '\r\033[K' >&2
    trap - INT TERM HUP EXIT
    if ! wait "$child"; then
        tail -n 30 "$log" >&2
        fail "$what: failed. The whole output is in $log; the command was: $*"
    fi
}

# Debian's Python comes without pip and without what makes it (the package python3-venv). The same
# pip is then taken from Debian's package, without root.
add_debian_pip() {
    local wheel folder
    wheel=$(compgen -G "/usr/share/python-wheels/pip-*.whl" | tail -n 1) || true
    if [ -z "$wheel" ]; then
        echo "This Python has no pip. Fetching Debian's ..." >&2
        folder=$(cd "$root" && "$venv/bin/python" -m tandem.local.debian pip "$root/.servers") ||
            fail "pip could not be fetched. Install the package python3-venv and try again"
        wheel=$(compgen -G "$folder/usr/share/python-wheels/pip-*.whl" | tail -n 1)
    fi
    patiently "Installing pip" "$venv/bin/python" "$wheel/pip" install --no-index "$wheel"
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    echo "Making the virtual environment .venv with $("$python" --version)" >&2
    "$python" -m venv --clear --without-pip "$venv"
    if "$python" -c 'from ensurepip import bootstrap' 2>/dev/null; then
        patiently "Installing pip" "$venv/bin/python" -m ensurepip --upgrade --default-pip
    else
        add_debian_pip
    fi
}

# The file with the versions and hashes of what an extra needs.
lock_file() {
    echo "requirements/${1:-tandem}.txt"
}

# What the installed packages depend on.
fingerprint() {
    (cd "$root" && "$venv/bin/python" -c 'if True:
        import hashlib, pathlib, sys
        files = "setup.cfg", "pyproject.toml", sys.argv[1]
        text = sys.version + "".join(pathlib.Path(f).read_text() for f in files)
        print(hashlib.sha256((text + str(pathlib.Path.cwd())).encode()).hexdigest())' "$(lock_file "$1")")
}

# Whether the files in requirements/ were made for this Python and machine.
is_locked() {
    "$venv/bin/python" -c 'if True:
        import platform, sys
        is_known = platform.libc_ver()[0] == "glibc" and platform.machine() in ("x86_64", "aarch64")
        is_python = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info < (3, 15)
        sys.exit(not (is_known and is_python))'
}

# Install into .venv exactly what requirements/ says, whose files have these hashes, and with what is
# there then Tandem itself: nothing else is fetched, to build it neither.
install_locked() {
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off)
    patiently "Installing the packages of $(lock_file "$1") into .venv" \
        "${pip[@]}" --require-hashes --only-binary :all: --requirement "$root/$(lock_file "$1")"
    patiently "Installing Tandem into .venv" \
        "${pip[@]}" --no-deps --no-build-isolation --no-index --editable "$root"
}

# The same where nobody has tried what is locked: what setup.cfg allows, as it is today.
install_unlocked() {
    echo "requirements/ is for Python 3.11 to 3.14 on Linux, x86_64 or aarch64. This is another one:" \
        "packages are installed as setup.cfg allows them, and no hashes are checked." >&2
    patiently "Installing Tandem${1:+ with what its ${1}s need} into .venv" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
        --editable "$root${1:+[$1]}"
}

ensure_venv() {
    local extra=${1:-} stamp wanted
    if command -v flock >/dev/null; then
        # Two commands may begin at once.
        mkdir -p "$root/.servers"
        exec 9>"$root/.servers/venv.lock"
        flock 9
    fi
    if ! is_right_python "$venv/bin/python" ||
        ! compgen -G "$venv/lib/python3*/site-packages/pip/__main__.py" >/dev/null; then
        make_venv
    fi
    stamp=$venv/.installed${extra:+-$extra}
    wanted=$(fingerprint "$extra")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        if is_locked; then install_locked "$extra"; else install_unlocked "$extra"; fi
        echo "$wanted" >"$stamp"
    fi
    if command -v flock >/dev/null; then
        exec 9>&-
    fi
}
