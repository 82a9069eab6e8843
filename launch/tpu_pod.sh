#!/usr/bin/env bash
# One run on a Cloud TPU pod: requests it, installs, trains, asks for another one after a
# preemption and goes on there, and deletes it at the end.
#
#   PROJECT=my-project ZONE=us-central1-a NFS=10.0.0.2:/share TYPE=v5litepod-64 \
#     bash launch/tpu_pod.sh configs/modist.py:kinetics400 [--config.KEY=VALUE ...]
#   bash launch/tpu_pod.sh --dry_run configs/modist.py:kinetics400    prints the commands
#
# Environment: PROJECT and ZONE of Google Cloud, and
#   NFS      a share (e.g. Filestore) in the VPC network and region of the TPU, which the
#            hosts mount as /mnt/shared. Prepared data are in its folder data (or
#            --config.data.data_dir=/mnt/shared/...)
#   WORKDIR  default /mnt/shared/runs/<config name>; below /mnt/shared, where the hosts
#            may write
#   TYPE     default v6e-16, as gcloud calls it. Of v5litepod-64 and v6e-64 the number is
#            that of the chips, of v4-128 and v5p-128 twice that
#   RUNTIME  the TPU's software version; known for v2 to v6e
#   SPOT     default true: cheaper, may be preempted; SPOT=false is not
#   NAME     of the TPU, one for each run; default: WORKDIR's last part
#   DISK     of the zone, with an ext4 file system whose folder data has the prepared data:
#            all hosts get it read-only as /mnt/disk. For sets that the share is too slow for
#   PYTHON   here, checks the config before anything is asked for; default
#            .venv/bin/python, or python
#
# The same command on all hosts is enough: JAX finds them by itself. Start it where it
# may stay connected, e.g. in tmux; called again, it takes up the TPU it has asked for,
# and a run that is under way there saves and stops first. A training is finished when
# its summary.json exists: one that a signal has stopped, which ends with 0 as well, goes
# on. What fails on a TPU that is not preempted is tried three times, wrong input (exit
# code 2) once; the TPU is then deleted, and this ends as the run did. When gcloud cannot
# tell or change the TPU's state, even at the third attempt, or a signal stops this, it
# ends with 75, and says how to delete what "may still be there, and billed".
#
# Not run on Google Cloud: the commands it prints are tested as text, and what it does
# about each state with a stand-in for gcloud.
set -euo pipefail

if [ "${1:-}" = --help ]; then
  sed -n 's/^# //p; s/^#$//p; /^set /q' "$0"
  exit
fi
dry_run=false
if [ "${1:-}" = --dry_run ]; then
  dry_run=true
  shift
fi

source "$(dirname "$0")/common.sh"

config=${1:-}
usage="bash launch/tpu_pod.sh [--dry_run] configs/FILE.py [--config.KEY=VALUE ...]"
case $config in
  "") refuse "usage: $usage; --help tells more" ;;
  -*) refuse "$config: the config file comes first, without --config=: $usage" ;;
esac
shift

training=true own_data=false
for word in "$@"; do
  case $word in
    --config.data.data_dir=*) own_data=true ;;
    --config.mode=train) training=true ;;
    --config.mode=*) training=false ;;
    --config.*=*) ;;
    --workdir* | -workdir*) refuse "set WORKDIR=... instead of --workdir" ;;
    *) refuse "$word is not of the form --config.KEY=VALUE" ;;
  esac
done

workdir=${WORKDIR:-/mnt/shared/runs/$(basename "${config/.py/}" | tr ':,=' '---')}
case $workdir in
  /mnt/shared/?*) ;;
  *) refuse "WORKDIR=$workdir is not below /mnt/shared, which the hosts share" ;;
esac
case $config in
  configs/*)
    repository=$(cd "$(dirname "$0")/.." && pwd)
    [ -f "${config%%:*}" ] ||
      refuse "${config%%:*} does not exist in $PWD; if the folder is wrong: cd $(printf %q "$repository")"
    ;;
  *) refuse "$config is not in configs/, which the hosts get a copy of" ;;
esac
if $dry_run; then
  : "${PROJECT:=PROJECT}" "${ZONE:=ZONE}" "${NFS:=NFS}"
fi
missing=
for variable in PROJECT ZONE NFS; do
  if [ -z "${!variable:-}" ]; then missing+=" $variable=..."; fi
done
[ -z "$missing" ] || refuse "put before the command:$missing (--help tells what they are)"

: "${TYPE:=v6e-16}"
case $TYPE in # cloud.google.com/tpu/docs/runtimes
  v5e-*) refuse "TYPE=$TYPE: gcloud calls it v5litepod-${TYPE#v5e-}" ;;
  v6e-*) : "${RUNTIME:=v2-alpha-tpuv6e}" ;;
  v5p-*) : "${RUNTIME:=v2-alpha-tpuv5}" ;;
  v5litepod-*) : "${RUNTIME:=v2-alpha-tpuv5-lite}" ;;
  v[234]-*) : "${RUNTIME:=tpu-ubuntu2204-base}" ;;
  *) [ -n "${RUNTIME:-}" ] || refuse "TYPE=$TYPE is not known here: set RUNTIME, its software version" ;;
esac
check_config "$@"

name=${NAME:-$(basename "$workdir" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9\n' -)}
where=("--zone=$ZONE" "--project=$PROJECT")
request=(gcloud compute tpus queued-resources create "$name" "${where[@]}"
  "--node-id=$name" "--accelerator-type=$TYPE"
  "--runtime-version=$RUNTIME")
if [ "${SPOT:-true}" = true ]; then request+=(--spot); fi
data=/mnt/shared/data mount_disk=true
if [ -n "${DISK:-}" ]; then
  case $DISK in *[!a-z0-9-]*) refuse "DISK=$DISK is not the name of a disk" ;; esac
  data=/mnt/disk/data
  request+=("--data-disk=source=projects/$PROJECT/zones/$ZONE/disks/$DISK,mode=read-only")
  # Of a host's disks it is the one whose file system is not in a partition.
  mount_disk='(mountpoint -q /mnt/disk || { set -- $(lsblk -dnpo FSTYPE,NAME | sed -n "s/^ext4 *//p") && if [ $# != 1 ]; then echo "error: $(hostname) has $# disks with an ext4 file system outside partitions, expected DISK alone: $*" >&2; false; fi && sudo mkdir -p /mnt/disk && sudo mount -o ro,noload "$1" /mnt/disk; })'
fi
delete=(gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet)

# gcloud starts a command again when its connection is lost, and so may a user. The run
# that was under way hears of neither and holds the TPU: it is told to save and stop.
stop='{ p=$(cat run.pid 2>/dev/null) && grep -qa motion_jax "/proc/$p/cmdline" 2>/dev/null && kill "$p" && { timeout 180 tail --pid="$p" -f /dev/null || kill -9 "$p"; }; true; }'
command="cd motion_jax && $stop && "'echo $$ > run.pid && exec .venv/bin/python -m motion_jax.main'
command+=$(printf ' %q' "--config=$config" "--workdir=$workdir" \
  "--config.data.data_dir=$data" "$@")

# A new share belongs to root alone. Of others only a folder may be the user's.
writable="d=$(printf %q "$workdir")"'; until test -e "$d"; do d=$(dirname "$d"); done; test -w "$d" || { echo "error: $(id -un) on $(hostname) may not write to $d; where root may: sudo chmod a+rwx $(printf %q "$d")" >&2; exit 2; }'
if [ -n "${DISK:-}" ] && ! $own_data; then
  writable+='; test -d /mnt/disk/data || { echo "error: DISK has no folder data" >&2; exit 2; }'
fi

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
if ! $dry_run; then
  trap 'give_up "stopped by a signal"' INT TERM HUP
fi

run() {
  show "$@"
  if ! $dry_run; then "$@"; fi
}

on_hosts() { # WHICH COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

give_up() { # WHY
  {
    echo "error: $1; $name may still be there, and billed."
    echo "The same command goes on with it; this deletes it:"
    show "${delete[@]}"
  } >&2
  exit 75
}

look() { # sets $now to the state of the request, '' if there is none
  local attempt
  for attempt in 1 2 3; do
    if [ "$attempt" != 1 ]; then sleep 30; fi
    if now=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
      "--format=value(state.state)" 2>"$errors"); then
      now=${now:-UNKNOWN}
      return
    elif grep -q NOT_FOUND "$errors"; then
      now=
      return
    fi
    cat "$errors" >&2
  done
  give_up "gcloud cannot tell the state of $name"
}

remove() {
  local attempt
  for attempt in 1 2 3; do
    if run "${delete[@]}"; then return; fi
    sleep 30
    look
    if [ -z "$now" ]; then return; fi
  done
  give_up "gcloud cannot delete $name"
}

ask() {
  local attempt
  for attempt in 1 2 3; do
    if run "${request[@]}"; then return; fi
    sleep 30
    look
    if [ -n "$now" ]; then return; fi # it has been heard
  done
  give_up "gcloud cannot request $name"
}

check_disk() { # of a TPU that an earlier call has asked for
  local attached
  if [ -z "${DISK:-}" ]; then return; fi
  attached=$(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" \
    "--format=value(dataDisks[].sourceDisk)") || give_up "gcloud cannot tell the disks of $name"
  case ";$attached;" in
    *"/disks/$DISK;"*) ;;
    *) refuse "$name is there already, without this DISK: go on without it, or delete $name first: $(show "${delete[@]}")" ;;
  esac
}

obtain() { # waits until there is a TPU
  local asked=false # else an earlier call has
  if $dry_run; then
    run "${request[@]}"
    return
  fi
  while true; do
    look
    case $now in
      ACTIVE)
        $asked || check_disk
        return
        ;;
      SUSPENDED) # a preemption, even before it was used, leaves it so
        remove
        asked=false
        ;;
      FAILED)
        if $asked; then
          echo "error: the request for $name has failed" >&2
          exit 1
        fi
        remove
        ;;
      "")
        if $asked; then
          echo "error: somebody has deleted the request for $name" >&2
          exit 1
        fi
        ask
        asked=true
        ;;
      *) sleep 30 ;; # it waits, or is being made, suspended or deleted
    esac
  done
}

install() { # 2 means a share that may not be written to; uv says 2 of a lost network, too
  on_hosts all "mkdir -p motion_jax && cd motion_jax && $stop && sudo mkdir -p /mnt/shared && sudo apt-get install -y -q nfs-common && (mountpoint -q /mnt/shared || sudo mount -t nfs $(printf %q "$NFS") /mnt/shared) && $mount_disk || exit 1; $writable" || return
  run gcloud compute tpus tpu-vm scp --recurse setup.py README.md constraints.txt \
    motion_jax configs "$name:motion_jax/" "${where[@]}" --worker=all || return 1
  # uv brings its own Python: the hosts' may be older than 3.11.
  on_hosts all "cd motion_jax && python3 -m pip install -q uv && python3 -m uv venv -q --clear --python=3.12 .venv && python3 -m uv pip install -q --python=.venv -c constraints.txt -e \".[tpu]\"" || return 1
}

finished() { # other modes are, when they end
  local folder
  folder=$(printf %q "$workdir")
  ! $training || on_hosts 0 "test -e $folder/summary.json || test ! -d $folder/checkpoints"
}

failures=0
while true; do
  obtain
  code=0
  { install && on_hosts all "$command"; } || code=$?
  if [ "$code" = 0 ] && finished || $dry_run; then break; fi
  if [ "$code" = 2 ]; then break; fi # wrong input
  sleep 120 # until a preemption shows
  look
  if [ "$code" = 0 ] || [ "$now" != ACTIVE ]; then
    failures=0
    echo "stopped by a signal or preempted; going on"
  else
    failures=$((failures + 1))
    if [ "$failures" = 3 ]; then break; fi
    echo "ended with $code; trying again" >&2
  fi
done
remove
exit "$code"
