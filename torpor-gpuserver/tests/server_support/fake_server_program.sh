#!/bin/sh
# Stands in for torpor-gpuserver's hidden subcommands: two GPUs, a worker that is the test program itself, and a compiler that nobody asks.
case "$1" in
probe) sleep "${TORPOR_FAKE_PROBE_SECONDS:-0}"; echo 2 ;;
worker) TORPOR_FAKE_WORKER=1 exec "$TORPOR_FAKE_PROGRAM" --exact fake_worker --nocapture ;;
compiler) exec sleep 1000 ;;
esac
