#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The code that calls NCCL against the installed one.
# prefix: nccl
# timeout: 120
exec "$SHOAL_SOURCE/scripts/check-nccl"
