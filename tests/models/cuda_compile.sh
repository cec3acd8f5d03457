#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# prefix: cuda
# timeout: 600
# label: slow
# The kernels compile for the newest device that they are for; skipped without nvcc.
exec "$SHOAL_SOURCE/scripts/check-cuda" "$SHOAL_BUILD" sm_90a
