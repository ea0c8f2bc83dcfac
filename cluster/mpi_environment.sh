# shellcheck shell=bash
# Sourced, not run: what Open MPI 4 wants to be told on one machine. All of it can be overridden from outside.

# It refuses to start as root, which is what one is in a container.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# It refuses more ranks than cores; the tests want four ranks on any machine.
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
# It ties each of one or two ranks to a single core, whatever the number of cores.
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
