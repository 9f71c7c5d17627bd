# shellcheck shell=bash
# Sourced by scripts/demo and scripts/test: goes to the repository's root, makes .venv there, installs edgeport into it
# with everything at the versions of constraints.txt, and activates it. Says nothing and takes no time when that is done.
#
# PYTHON=/path/to/python3.11 chooses the interpreter. pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply; with
# an index that serves a CPU build of torch, the several gigabytes of CUDA libraries are not downloaded.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
unset PYTHONPATH PYTHONHOME # of another installation: its packages would be taken for installed ones
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

venv=.venv
stamp="$venv/.edgeport-installed"   # written last: what the installation was made from
unfinished="$venv/.edgeport-installing" # there from first to last: an interrupted installation is begun anew
log="$venv/install.log"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# can_apt: whether we may install Debian's packages ourselves.
can_apt() { [[ "$(id -u)" == 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; }

apt_refreshed=
apt_install() {
    say "Installing $* with apt-get ..."
    if [[ -z "$apt_refreshed" ]]; then
        apt-get update -qq </dev/null >/dev/null || true
        apt_refreshed=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null 2>&1
}

# Runs the interpreter instead of trusting its name: a pyenv shim exists for versions that are not there.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# The first suitable interpreter, or nothing. torch and LiteRT come as wheels for certain Python versions: 3.11 is the
# one everything is tested with; there are wheels for 3.12 and 3.13 too.
find_python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        case "$(version_of "$candidate")" in
            3.11 | 3.12 | 3.13)
                command -v "$candidate"
                return
                ;;
        esac
    done
}

choose_python() {
    local version
    if [[ -n "${PYTHON:-}" ]]; then
        python="$(command -v "$PYTHON" || true)"
        version="$(version_of "$PYTHON")"
        case "$version" in
            3.11 | 3.12 | 3.13) ;;
            '') die "PYTHON=$PYTHON does not run. Give the path of a Python 3.11, or unset PYTHON." ;;
            *) die "PYTHON=$PYTHON is Python $version; edgeport needs 3.11 (3.12 and 3.13 work too)." ;;
        esac
    else
        python="$(find_python)"
        if [[ -z "$python" ]] && can_apt; then
            apt_install python3.11 python3.11-venv || apt_install python3 python3-venv || true
            python="$(find_python)"
        fi
        [[ -n "$python" ]] || die \
            "Python 3.11 was not found (python3 is ${found:-$(version_of python3 | sed 's/^$/missing/')})." \
            "Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv"
    fi
}
