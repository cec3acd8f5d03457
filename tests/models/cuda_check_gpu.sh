#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# prefix: cuda
# scripts/check-gpu says that there is nothing to check with, rather than that all is well.
set -euo pipefail
[ -x "$SHOAL_BUILD/shoal" ] || exit 77
if "$SHOAL_BUILD/shoal" doctor | grep -qE '^  cuda .*, sm_'; then
    echo "skipped: there is a device"
    exit 77
fi
code=0
said=$(BUILD=$SHOAL_BUILD "$SHOAL_SOURCE/scripts/check-gpu") || code=$?
echo "$said"
[ $code = 77 ]
grep -q "no device that can be used" <<< "$said"
