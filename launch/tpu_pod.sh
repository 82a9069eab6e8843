#!/usr/bin/env bash
# One run on a Cloud TPU pod: requests it, installs, trains, asks for another one after a
# preemption and goes on there, and deletes it at the end.
#
#   PROJECT=my-project ZONE=us-east5-b NFS=10.0.0.2:/share \
#     launch/tpu_pod.sh configs/mosi.py:kinetics400 [--config.KEY=VALUE ...]
#   launch/tpu_pod.sh --dry_run configs/mosi.py:kinetics400      prints the commands
#
# Environment: NFS, a share (e.g. Filestore) that the hosts mount as /mnt/shared; runs go
# to /mnt/shared/runs, prepared data belong below /mnt/shared
# (--config.data.data_dir=/mnt/shared/...). TYPE (default v6e-16) and RUNTIME say which
# TPU; SPOT=false asks for one that is not preempted; NAME names it.
# The same command on all hosts is enough: JAX finds them by itself. Start it where it
# may stay connected, e.g. in tmux; called again, it takes up the TPU it has asked for.
# A training is finished when its summary.json exists: one that a signal has stopped,
# which ends with 0 as well, goes on.
#
# Not run on Google Cloud: the commands it prints are tested as text.
set -euo pipefail

dry_run=false
if [ "${1:-}" = --dry_run ]; then
  dry_run=true
  shift
fi
config=${1:?usage: launch/tpu_pod.sh [--dry_run] configs/FILE.py [--config.KEY=VALUE ...]}
shift

run_name=$(basename "${config/.py/}" | tr ':,=' '---')
name=${NAME:-$(echo "$run_name" | tr 'A-Z_.' 'a-z--')}
if $dry_run; then
  : "${PROJECT:=PROJECT}" "${ZONE:=ZONE}" "${NFS:=NFS}"
fi
: "${PROJECT:?set PROJECT}" "${ZONE:?set ZONE}" "${NFS:?set NFS, HOST:/SHARE}"
where=("--zone=$ZONE" "--project=$PROJECT")
workdir=/mnt/shared/runs/$run_name
training=true
for word in "$@"; do
  case $word in
    --config.mode=train) training=true ;;
    --config.mode=*) training=false ;;
  esac
done
command="cd motion_jax && .venv/bin/python -m motion_jax.main"
command+=$(printf ' %q' "--config=$config" "--workdir=$workdir" "$@")

run() {
  printf '%q ' "$@"
  echo
  if ! $dry_run; then "$@"; fi
}

on_hosts() { # WHICH COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    "--format=value(state.state)" 2>/dev/null || true
}

create() {
  local spot=(--spot)
  if [ "${SPOT:-true}" != true ]; then spot=(); fi
  if ! $dry_run; then
    case $(state) in SUSPEND* | FAILED) delete ;; esac # a preemption leaves it so
  fi
  if $dry_run || [ -z "$(state)" ]; then # else an earlier call has made it
    run gcloud compute tpus queued-resources create "$name" "${where[@]}" \
      "--node-id=$name" "--accelerator-type=${TYPE:-v6e-16}" \
      "--runtime-version=${RUNTIME:-v2-alpha-tpuv6e}" "${spot[@]}"
  fi
  await
}

await() { # until it is there
  local now
  until $dry_run || { now=$(state) && [ "$now" = ACTIVE ]; }; do
    case $now in
      SUSPEND*) # preempted before it was used
        create
        return
        ;;
      FAILED)
        echo "the request for $name has failed" >&2
        return 1
        ;;
    esac
    sleep 30
  done
}

install() {
  on_hosts all "mkdir -p motion_jax && sudo mkdir -p /mnt/shared && sudo apt-get install -y -q nfs-common && (mountpoint -q /mnt/shared || sudo mount -t nfs $NFS /mnt/shared)" &&
    run gcloud compute tpus tpu-vm scp --recurse setup.py README.md constraints.txt \
      motion_jax configs "$name:motion_jax/" "${where[@]}" --worker=all &&
    # uv brings its own Python: the hosts' may be older than 3.11.
    on_hosts all "cd motion_jax && python3 -m pip install -q uv && python3 -m uv venv -q --clear --python=3.12 .venv && python3 -m uv pip install -q --python=.venv -e '.[tpu]'"
}

finished() { # other modes are, when they end
  ! $training || on_hosts 0 "test -e $workdir/summary.json || test ! -d $workdir/checkpoints"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

while true; do
  create
  code=0
  { install && on_hosts all "$command"; } || code=$?
  if [ "$code" = 0 ] && finished || $dry_run; then break; fi
  sleep 120 # until a preemption shows
  if [ "$code" != 0 ] && [ "$(state)" = ACTIVE ]; then break; fi # the run's own error
  echo "stopped by a signal or preempted; going on"
done
delete
exit "$code"
