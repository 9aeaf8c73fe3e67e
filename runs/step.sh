#!/usr/bin/env bash
# For scripts that can be run again after an interruption: what is complete is kept, what was stopped goes on.

set -euo pipefail

# step FILE COMMAND...: make FILE by COMMAND, unless it is there and complete.
step() {
  local file=$1
  shift
  if [[ -e $file ]] && hiersae info --json "$file" | grep '"complete": true' >/dev/null; then
    echo "$file is there" >&2
  else
    echo "\$ $*" >&2
    "$@"
    echo >&2
  fi
}
