#!/usr/bin/env bash
# Runs mypy on the package as it is installed: `defect_hub.modeling` lies in modeling/, which mypy cannot know.
# Usage: scripts/check_types.sh MYPY, from the root of the checkout.
set -euo pipefail
shopt -s nullglob

mypy=$1
tree=$PWD/build/types
rm -rf "$tree"
mkdir -p "$tree/defect_hub"
ln -s "$PWD"/defect_hub/* "$tree/defect_hub/"
for folder in dataset_scripts modeling train evaluate_metrics publishing benchmarks; do
    ln -s "$PWD/$folder" "$tree/defect_hub/$folder"
done
MYPYPATH=$tree "$mypy" -p defect_hub
# Scripts outside the package, one run each: several are named app.py.
for script in spaces/*/app.py evaluate_metrics/*/*.py; do
    [[ $script == evaluate_metrics/kernels/* ]] || MYPYPATH=$tree "$mypy" "$script"
done
