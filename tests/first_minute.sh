#!/usr/bin/env bash
# The first minute of somebody who has never seen charrnn: a bare environment, the install, the first completion, a short
# training, a completion by the model that it gave, help. Prints the seconds of each as a table.
#
#   bash tests/first_minute.sh                     torch's CPU build, from its own index
#   bash tests/first_minute.sh torch==2.13.0       or as pip's arguments say
#
# PYTHON: the interpreter to make the environment with, python3 where it is not set. WORK: a folder to work in, which is
# kept; where charrnn is installed there already, that is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=("$@")
[ $# -gt 0 ] || torch=("torch>=2.10,<2.14" --index-url https://download.pytorch.org/whl/cpu)

# Nothing that is trained, compiled or installed already is seen.
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
rm -rf "$work/runs" "$work/cache" "$work/elsewhere"
export CHARRNN_HOME="$work/runs" XDG_CACHE_HOME="$work/cache" PIP_CACHE_DIR="$work/pip"
unset PYTHONPATH

rows=()
timed() { # WHAT COMMAND...: run a command, note its seconds
    local what=$1 began=${EPOCHREALTIME/,/.}
    shift
    echo "== $what: $*" >&2
    "$@" >&2
    rows+=("| $what | $(awk -v a="$began" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f", b - a }') |")
}

if [ ! -x "$work/venv/bin/charrnn" ]; then
    "${PYTHON:-python3}" -m venv "$work/build"
    "$work/build/bin/pip" install --quiet build
    "$work/build/bin/python" -m build --outdir "$work/dist" . >&2
    timed "a new environment" "${PYTHON:-python3}" -m venv "$work/venv"
    timed "installing torch, downloading it too" "$work/venv/bin/pip" install --quiet "${torch[@]}"
    timed "installing charrnn and the rest" "$work/venv/bin/pip" install --quiet "$work"/dist/*.whl
fi
PATH="$work/venv/bin:$PATH"
mkdir "$work/elsewhere"
cd "$work/elsewhere"
timed "the first completion, 200 characters" charrnn sample --prime Rekurentne --chars 200
timed "the same again" charrnn sample --prime Rekurentne --chars 200
timed "training, with --budget 20s" charrnn train --budget 20s
timed "a completion by that model" charrnn sample --prime Rekurentne --chars 200
timed "help" charrnn --help

echo "| what | seconds |"
echo "|---|---|"
printf '%s\n' "${rows[@]}"
echo
python --version
charrnn env | grep -E "^(charrnn|processor|torch |system)"
du -sm "$work/venv" | awk '{ print $1 " MB on the disk" }'
