#!/usr/bin/env bash
# For scripts that can be run again after an interruption: complete files are kept, and a stopped step resumes.

set -euo pipefail

# step FILE COMMAND...: make FILE with COMMAND, unless a complete FILE exists.
step() {
  local file=$1
  shift
  if [[ -e $file ]] && hiersae info --json "$file" | grep '"complete": true' >/dev/null; then
    echo "$file exists already" >&2
  else
    echo "\$ $*" >&2
    "$@"
    echo >&2
  fi
}
