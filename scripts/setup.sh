# shellcheck shell=bash
# Sourced by scripts/demo and scripts/test: goes to the repository's root, makes .venv, installs edgeport in it with all
# that it needs at the versions of constraints.txt, and puts it first in PATH. Where that is done already, it takes no
# time and says nothing.
#
# PYTHON=/path/to/python3.11 chooses the interpreter. pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply:
# with an index that serves a CPU build of torch, gigabytes of CUDA libraries are spared.

unset PYTHONPATH PYTHONHOME # packages of another installation would be taken for installed ones
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
stamp="$venv/.edgeport-installed"       # what the installation was made from; written last
unfinished="$venv/.edgeport-installing" # there while pip works: an installation that was cut off is made anew
log="$venv/install.log"

say() { printf '%s\n' "$@" >&2; }

die() {
    say "$@"
    exit 1
}

set_up() {
    cd "$root" || exit
    if ! usable; then
        choose_python
        need_venv
        say "Making .venv with Python $(version "$python") ($python)"
        rm -f "$venv/bin/activate" # is written last: without it, what is left of .venv is not usable
        "$python" -m venv --clear "$venv" || die "$python could not make $venv; the reason stands above."
    fi
    if [[ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint)" ]]; then
        install
        fingerprint >"$stamp"
    fi
    export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
}

# Whether .venv is whole, was made where it is now (it cannot be moved) and is of the Python that is asked for.
usable() {
    local found
    found="$(version "$venv/bin/python")"
    [[ -n "$found" && ! -e "$unfinished" ]] || return 1
    grep -qsF "$venv" "$venv/bin/activate" || return 1
    [[ -z "${PYTHON:-}" || "$(version "$PYTHON")" == "$found" ]]
}

# What an installation depends on, as one word.
fingerprint() {
    "$venv/bin/python" -c '
import hashlib, pathlib, sys
content = [pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256(b"\0".join([sys.version.encode(), *content])).hexdigest())'
}

# Prints 3.11, or nothing where it does not run (pyenv has commands for versions that are not there).
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# Sets python. Everything is tested with 3.11; torch and LiteRT come as wheels for 3.12 and 3.13 too.
choose_python() {
    if [[ -n "${PYTHON:-}" ]]; then
        python="$PYTHON"
        case "$(version "$python")" in
            '') die "PYTHON=$PYTHON does not run; give the path of Python 3.11, or unset PYTHON." ;;
            2.* | 3.? | 3.10) die "PYTHON=$PYTHON is Python $(version "$python"); edgeport needs 3.11." ;;
        esac
    elif ! find_python; then
        ! can_apt || apt_install python3.11 python3.11-venv || apt_install python3 python3-venv || true
        find_python || die "edgeport needs Python 3.11, and none was found (python3 is $(describe python3))." \
            "Debian 12, Ubuntu 22.04: sudo apt-get install python3.11 python3.11-venv" \
            "Then run this again; PYTHON=/path/to/python3.11 chooses one that is not in PATH."
    fi
    [[ "$(version "$python")" == 3.11 ]] ||
        say "Note: Python 3.11 is what edgeport is tested with; this is $(version "$python")."
}

find_python() {
    for python in python3.11 python3 python3.12 python3.13; do
        case "$(version "$python")" in 3.11 | 3.12 | 3.13) return 0 ;; esac
    done
    return 1
}

describe() {
    local found
    found="$(version "$1")"
    printf '%s' "${found:-missing}"
}

# Debian and Ubuntu keep half of the standard library's venv in a package of its own.
need_venv() {
    local package
    package="python$(version "$python")-venv"
    has_venv && return
    ! can_apt || apt_install "$package" || true
    has_venv || die "$python cannot make virtual environments: its venv or ensurepip module is missing." \
        "Debian, Ubuntu: sudo apt-get install $package" "Then run this again."
}

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

# Whether Debian's packages can be installed without asking anyone.
can_apt() { [[ "$(id -u)" == 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; }

apt_install() {
    say "Installing $* with apt-get"
    [[ -n "${apt_updated:-}" ]] || apt-get update -qq </dev/null >/dev/null 2>&1 || true
    apt_updated=1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null 2>&1
}

# What the tests of devices need. Where a service manager runs, an SSH server would be started by being installed: that
# is left to whoever owns the machine, and the tests say what they skipped.
install_test_tools() {
    local wanted=()
    can_apt && [[ ! -d /run/systemd/system ]] || return 0
    [[ -x /usr/sbin/sshd ]] || wanted+=(openssh-server)
    command -v ssh-keygen >/dev/null || wanted+=(openssh-client)
    [[ -e /usr/lib/binfmt.d/qemu-aarch64.conf ]] || wanted+=(qemu-user-static)
    command -v adb >/dev/null || wanted+=(adb)
    command -v faketime >/dev/null || wanted+=(faketime)
    [[ ${#wanted[@]} == 0 ]] || apt_install "${wanted[@]}" || say "apt-get could not install ${wanted[*]}"
}

# For the tests of the history. Debian's packages would make a database of their own and start its server: they are told
# not to. Where it cannot be installed those tests are skipped, and say so.
want_postgresql() {
    local settings=/etc/postgresql-common/createcluster.d
    ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null || return 0
    can_apt || return 0
    mkdir -p "$settings" && echo 'create_main_cluster = false' >"$settings/edgeport.conf"
    apt_install postgresql || say 'PostgreSQL could not be installed; the tests that need it are skipped.'
}

install() {
    say "Installing edgeport and what it needs into .venv: some minutes and 3 GB, more where torch is a CUDA build"
    trap 'say "" "Interrupted; run this again to begin anew."; exit 130' INT
    : >"$unfinished"
    local pip=("$venv/bin/python" -m pip install --progress-bar off -c constraints.txt -e '.[dev,plot]')
    if ! "${pip[@]}" </dev/null 2>&1 | follow; then
        say '' 'pip failed. The end of its output:' ''
        tail -n 15 "$log" >&2
        die '' "All of it is in ${log#"$root"/}. With network access to a package index, run this again."
    fi
    rm "$unfinished"
    trap - INT
}

# Keeps pip's output in the log. On a terminal, shows on one line what it is at.
follow() {
    local line
    while IFS= read -r line; do
        printf '%s\n' "$line"
        [[ -t 2 && "$line" =~ ^\ *(Collecting|Downloading|Building|Installing)\  ]] || continue
        printf '\r\033[K  %.76s' "${line# }" >&2
    done >"$log"
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
}
