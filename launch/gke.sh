#!/usr/bin/env bash
# One run on a TPU slice of Google Kubernetes Engine: fills in gke_jobset.yaml, which says
# how the hosts start and when they start again, and applies it.
#
#   IMAGE=REGISTRY/motion_jax:1 CLAIM=shared \
#     bash launch/gke.sh configs/modist.py:kinetics400 [--config.KEY=VALUE ...]
#   bash launch/gke.sh --dry_run configs/modist.py:kinetics400
#
# The last one prints the command and the yaml. 64 chips of v5e, 16 hosts with 4 each
# (nodes ct5lp-hightpu-4t), are
#
#   TPU=tpu-v5-lite-podslice TOPOLOGY=8x8 HOSTS=16 CHIPS=4 IMAGE=... CLAIM=... \
#     bash launch/gke.sh configs/modist.py:kinetics400
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
# the chips of TOPOLOGY. NAME (default: WORKDIR's last part) names the set. PYTHON (default
# .venv/bin/python, or python), here, checks the config before anything is asked for.
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

source "$(dirname "$0")/common.sh"

CONFIG=${1:-}
usage="bash launch/gke.sh [--dry_run] configs/FILE.py [--config.KEY=VALUE ...]"
case $CONFIG in
  "") refuse "usage: $usage; --help tells more" ;;
  -*) refuse "$CONFIG: the config file comes first, without --config=: $usage" ;;
esac
shift

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
missing=
for variable in IMAGE CLAIM; do
  if [ -z "${!variable:-}" ]; then missing+=" $variable=..."; fi
done
[ -z "$missing" ] || refuse "put before the command:$missing (--help tells what they are)"
if [ $((${TOPOLOGY//x/*})) != $((HOSTS * CHIPS)) ]; then
  refuse "HOSTS=$HOSTS x CHIPS=$CHIPS are not the chips of TOPOLOGY=$TOPOLOGY"
fi
config=$CONFIG
check_config "$@"

yaml=$(sed '/^#/d' "$(dirname "$0")/gke_jobset.yaml")
for key in NAME CONFIG WORKDIR OVERRIDES IMAGE TPU TOPOLOGY HOSTS CHIPS CLAIM; do
  yaml=${yaml//"\${$key}"/"${!key}"}
done

if $dry_run; then
  printf "kubectl apply -f - <<'END'\n%s\nEND\n" "$yaml"
else
  kubectl apply -f - <<<"$yaml"
fi
