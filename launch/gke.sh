#!/usr/bin/env bash
# One run on a TPU slice of Google Kubernetes Engine: fills in gke_jobset.yaml, which says
# how the hosts start and when they start again, and applies it.
#
#   IMAGE=REGISTRY/motion_jax:1 CLAIM=shared \
#     launch/gke.sh configs/mosi.py:kinetics400 [--config.KEY=VALUE ...]
#   launch/gke.sh --dry_run configs/mosi.py:kinetics400     prints the command and the yaml
#
# The image, from the repository (with '.[tpu]', and the repository as its folder):
#
#   docker build -f launch/Dockerfile -t REGISTRY/motion_jax:1 .
#   docker push REGISTRY/motion_jax:1
#
# Environment: CLAIM is a persistent volume claim that many hosts may write to (e.g.
# Filestore), which they see as /mnt/shared; prepared data belong in /mnt/shared/data, and
# WORKDIR (default /mnt/shared/runs/<config name>) is below /mnt/shared. TPU (default
# tpu-v6e-slice) and TOPOLOGY (4x4) say which slice: HOSTS x CHIPS (4 x 4), per host, are
# the chips of TOPOLOGY. NAME (default: WORKDIR's last part) names the set.
#
# A set that is there already is left as it is. To go on with one that has ended, `kubectl
# delete jobset NAME` before; the run's folder stays.
#
# Not run on GKE: what it would apply is tested as text.
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
CONFIG=${1:?usage: launch/gke.sh [--dry_run] configs/FILE.py [--config.KEY=VALUE ...]; --help tells more}
shift

refuse() {
  echo "error: $1" >&2
  exit 2
}

OVERRIDES= # in single quotes of yaml, which double those within
quote="'"
for word in "$@"; do
  case $word in
    --config.*=*) OVERRIDES+="${OVERRIDES:+, }'${word//$quote/$quote$quote}'" ;;
    --workdir* | -workdir*) refuse "set WORKDIR=... instead of --workdir" ;;
    *) refuse "$word is not of the form --config.KEY=VALUE" ;;
  esac
done

: "${WORKDIR:=/mnt/shared/runs/$(basename "${CONFIG/.py/}" | tr ':,=' '---')}"
case $WORKDIR in
  /mnt/shared/?*) ;;
  *) refuse "WORKDIR=$WORKDIR is not below /mnt/shared, which the hosts share" ;;
esac
: "${NAME:=$(basename "$WORKDIR" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9\n' -)}"
: "${TPU:=tpu-v6e-slice}" "${TOPOLOGY:=4x4}" "${HOSTS:=4}" "${CHIPS:=4}"
if $dry_run; then
  : "${IMAGE:=IMAGE}" "${CLAIM:=CLAIM}"
fi
: "${IMAGE:?set IMAGE, REGISTRY/NAME:TAG}" "${CLAIM:?set CLAIM}"
if [ $((${TOPOLOGY//x/*})) != $((HOSTS * CHIPS)) ]; then
  refuse "HOSTS=$HOSTS x CHIPS=$CHIPS are not the chips of TOPOLOGY=$TOPOLOGY"
fi

yaml=$(sed '/^#/d' "$(dirname "$0")/gke_jobset.yaml")
for key in NAME CONFIG WORKDIR OVERRIDES IMAGE TPU TOPOLOGY HOSTS CHIPS CLAIM; do
  yaml=${yaml//"\${$key}"/"${!key}"}
done

if $dry_run; then
  printf "kubectl apply -f - <<'END'\n%s\nEND\n" "$yaml"
else
  kubectl apply -f - <<<"$yaml"
fi
