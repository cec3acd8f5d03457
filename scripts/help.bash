# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts of this folder: with --help they print the comment at their head.
case "${1:-}" in
-h | --help)
    sed -n '3,${/^#/!q;s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
esac
