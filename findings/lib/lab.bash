# Sourced by every finding. $work: a folder that goes with the script. `packages NAME==VERSION...` makes $python, an environment of its
# own with these packages and lab.py beside them.
set -euo pipefail
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export WORK=$work PYTHONPATH=$lib PYTHONDONTWRITEBYTECODE=1

packages() {
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    [ $# = 0 ] || "$python" -m pip install --quiet --disable-pip-version-check "$@"
}
