#!/usr/bin/env bash
# Starts ranks on this machine and shares its cores among them:
#
#     cluster/run_mpi.sh RANKS COMMAND [ARGUMENT …]
#     cluster/run_mpi.sh 2 build/release/bireme train --config configs/fashion_mnist.toml …
set -euo pipefail

if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: cluster/run_mpi.sh RANKS COMMAND [ARGUMENT …]" >&2
  exit 2
fi
ranks=$1
shift

source "$(dirname "${BASH_SOURCE[0]}")/mpi_environment.sh"
cores=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}"
exec mpirun -n "$ranks" "$@"
