#!/usr/bin/env bash
# Installs the headless browser of the `browser` tests on Debian. Without the rights to do so it only says what is missing.
set -euo pipefail

if [[ -x /usr/bin/chromium ]]; then
    exit 0
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Missing /usr/bin/chromium; install it with: sudo apt-get install chromium fonts-dejavu-core" >&2
        exit 0
    fi
    as_root=(sudo -n)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium fonts-dejavu-core
