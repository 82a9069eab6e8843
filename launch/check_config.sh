# Sourced by launchers, which have $config and `refuse`.

check_config() { # OVERRIDES: refuses what the program would refuse, if it is here to ask
  local code=0 said python=${PYTHON:-python}
  said=$("$python" -m motion_jax.main "--config=$config" "$@" --print_config 2>&1 >/dev/null) || code=$?
  case $code:$said in
    0:*) ;;
    2:*error:\ *) refuse "${said#*error: }" ;;
    *)
      {
        echo "# THE CONFIG IS NOT CHECKED, here is no motion_jax to do it: ${said##*$'\n'}"
        echo "# (PYTHON=.venv/bin/python names a Python that has it)"
      } >&2
      ;;
  esac
}
