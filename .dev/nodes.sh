# Shared by .dev/up and .dev/down: which processes are the nodes that `make up` started.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
kai=$top/bin/kai
run=$top/run

# ours PID: is that process alive, and is it our binary? A pid file outlives its process, and the
# number may be someone else's by now.
ours() {
  local pid=$1 exe
  [[ $pid =~ ^[0-9]+$ ]] && kill -0 "$pid" 2>/dev/null || return 1
  if [[ -e /proc/self/exe ]]; then
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    [[ ${exe% (deleted)} == "$kai" ]] # "(deleted)": the binary was built again since
  else
    [[ $(ps -o comm= -p "$pid") == "$kai" ]] # systems without /proc
  fi
}

# pid_of FILE: the pid in it if that process is ours.
pid_of() {
  local pid
  [[ -f $1 ]] && pid=$(<"$1") && ours "$pid" && printf '%s\n' "$pid"
}
