#pragma once

#include <optional>
#include <string>

#include "distributed/communicator.h"

namespace bireme {

/// Threads that a rank should compute with: OMP_NUM_THREADS if set, else its share of the host's cores, and
/// no more than the launcher lets it run on.
int default_threads(const Communicator& communicator);

/// A warning when the launcher holds this rank on fewer cores than its share, as `mpirun -n 1` of Open MPI
/// does: what was found, and the option that cures it. Nothing when OMP_NUM_THREADS asks for no more than
/// there are.
std::optional<std::string> affinity_warning(const Communicator& communicator);

}  // namespace bireme
