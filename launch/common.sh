# Sourced by the launchers, from beside them. Written for the bash of macOS, 3.2, too.

refuse() {
  echo "error: $1" >&2
  exit 2
}

show() { # prints a command as a shell reads it
  local word quote="'" escaped="'\\''"
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//$quote/$escaped}'" ;;
    esac
    printf '%s ' "$word"
  done
  echo
}

python_here() { # prints which Python checks a config: $PYTHON, the repository's, or any
  local own
  own=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python
  if [ -n "${PYTHON:-}" ]; then
    echo "$PYTHON"
  elif [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$own" ]; then
    echo "$own"
  else
    echo python
  fi
}

check_config() { # OVERRIDES of $config: refuses what the program would, if it is here
  local code=0 said
  said=$("$(python_here)" -m motion_jax.main "--config=$config" "$@" --print_config 2>&1 >/dev/null) || code=$?
  case $code:$said in
    0:*) ;;
    2:*error:\ *) refuse "${said#*error: }" ;;
    *)
      {
        echo "# THE CONFIG IS NOT CHECKED, here is no motion_jax to do it: ${said##*$'\n'}"
        echo "# (PYTHON=... names a Python that has it)"
      } >&2
      ;;
  esac
}
