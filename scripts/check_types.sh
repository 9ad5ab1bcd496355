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
# Scripts outside the package: the modules in one run, each app.py, all of one name, in its own.
modules=()
for script in spaces/*/app.py evaluate_metrics/*/*.py; do
    case $script in
    evaluate_metrics/kernels/*) ;;
    */app.py) MYPYPATH=$tree "$mypy" "$script" ;;
    *) modules+=("$script") ;;
    esac
done
MYPYPATH=$tree "$mypy" "${modules[@]}"
