#!/bin/sh
# Cargo's runner (see .cargo/config.toml): starts a program, under sudo if the program needs the kernel and
# the caller is not root.
#
# The tracer needs root unless it prints its usage or reads a recording. Of the tests, only the package
# `tcptrace-tests` needs root.
set -eu

needs_root() {
    case "${1##*/}" in
    tcptrace-bpf)
        shift
        for argument in "$@"; do
            case "$argument" in
            -h | --help | help | -V | --version | -i* | --input | --input=*) return 1 ;;
            esac
        done
        ;;
    *) [ "${CARGO_PKG_NAME-}" = tcptrace-tests ] ;;
    esac
}

if [ "$(id -u)" -eq 0 ] || ! needs_root "$@"; then
    exec "$@"
fi
if ! command -v sudo >/dev/null; then
    echo "${1##*/} needs root, and sudo is not installed: install sudo, or run the same cargo command as root" >&2
    exit 1
fi
exec sudo -E "$@"
