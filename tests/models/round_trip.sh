# SPDX-License-Identifier: Apache-2.0
# timeout: 900
# label: slow
# Weights out of other packages and back into them (scripts/compare-round-trip): one network of each
# kind, with SHOAL_FULL=1 all. Skipped where there is no Python with the packages.
set -euo pipefail
cd "$SHOAL_SOURCE"
if [ -z "${COMPARE_PYTHON:-}" ] && [ ! -e build/compare-round-trip/venv/ready ]; then
    echo "skipped: no COMPARE_PYTHON, and scripts/compare-round-trip has not made its environment"
    exit 77
fi
export BUILD=$SHOAL_BUILD
if [ -n "${SHOAL_FULL:-}" ]; then
    exec scripts/compare-round-trip
fi
exec scripts/compare-round-trip mobilenet_v2 keras:mobilenet_v2_keras vit_small_patch16_224@160x96
