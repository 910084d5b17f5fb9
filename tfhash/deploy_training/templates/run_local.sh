#!/usr/bin/env bash
# Trains with %%workers workers on this machine. Paths in %%flagfile count from where you start it.
#
#   ./run_local.sh [FLAG ...]     more flags of tfhash.train, for each worker
#
# Where a worker ends badly all are ended, and all start again from the last checkpoint, up to
# RESTARTS times (%%restarts). A mistake of yours, exit status 2, ends it at once. PYTHON and PORT say
# which Python, and the first port. What the first worker prints is shown, of others the errors.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workers=%%workers port=${PORT:-%%port} restarts=${RESTARTS:-%%restarts} python=${PYTHON:-python}

addresses=
for ((i = 0; i < workers; i++)); do
  addresses+="${addresses:+, }\"127.0.0.1:$((port + i))\""
done

start() { # INDEX FLAG ...
  local index=$1
  shift
  export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
  exec "$python" -m tfhash.train --flagfile="$here/%%flagfile" "$@"
}

end_all() { # a checkpoint is written in one move, so that nothing is lost
  # Only those that run: the number of one that has ended may be that of a stranger by now.
  kill -KILL $(jobs -rp)
  wait
} 2>/dev/null

trap 'end_all; exit 130' INT
trap 'end_all; exit 143' TERM
for ((try = 0; ; try++)); do
  for ((i = 0; i < workers; i++)); do
    if ((i == 0)); then start "$i" "$@" & else start "$i" "$@" >/dev/null & fi
  done
  status=0
  for ((i = 0; i < workers && status == 0; i++)); do
    wait -n 2>/dev/null || status=$?
  done
  # The others tell soon, in a line of their own, that they miss the one that is gone.
  end_all
  if ((status == 0 || status == 2)); then exit "$status"; fi
  if ((try >= restarts)); then
    echo "run_local.sh: a worker ended with status $status; started $((try + 1)) times" >&2
    exit 1
  fi
  echo "run_local.sh: a worker ended with status $status; all start again" >&2
done
