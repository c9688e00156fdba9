#!/usr/bin/env bash
# The main job on the shipped checkpoints: inspect, export, validate, build an engine, run. Called by
# `make demo`.
set -euo pipefail
bin=${BIN:?folder of the xlstm-export command}
out=${OUT:-out}
here=recipes/demo

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi

step() {
  local command
  printf -v command ' %q' "$bin/xlstm-export" "$@"
  printf '\n%s$%s%s\n' "$bold" "$command" "$plain"
  "$bin/xlstm-export" "$@"
}

for model in char_lm parity forecaster; do
  step inspect "$here/$model"
  step export "$here/$model" -o "$out/$model" --overwrite
  step validate "$out/$model" --reference "$here/$model"
  if "$bin/python" -c 'import sys, importlib.util as u, xlstm_export.native as n
sys.exit(not (n.trt_library_path() and u.find_spec("tensorrt_rtx")))'; then
    step build "$out/$model" --backend tensorrt_rtx --compute-capability 8.9
  else
    printf "\nno engine: it takes nvcc for the plugin library, and pip install '.[rtx]'\n"
  fi
done
step run "$out/char_lm" --prompt "The Rays of Light " --max-new-tokens 200 --temperature 0.7 --seed 1
printf '\nparity of 1 0 1 1 0 1 (ids are bits; the model answers 0 or 1 after each):\n'
step run "$out/parity" --ids 1,0,1,1,0,1 --max-new-tokens 1
printf '\nthree series of 600 hours, four days on:\n'
step run "$out/forecaster" --csv "$here/forecaster/series.csv" --horizon 96 \
  --output "$out/forecast.csv" --plot "$out/forecast.png"

printf '\nDone. Bundles and their reports:\n'
ls -d "$out"/*/ "$out"/*/reports/validation.md
printf 'The forecast: %s, its plot: %s\n' "$out/forecast.csv" "$out/forecast.png"
