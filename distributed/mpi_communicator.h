#pragma once

#include <memory>

#include "distributed/transport.h"

namespace bireme {

/// True when a launcher started this process as one of an MPI job, by what it left in the environment.
/// @throws Error (usage) when srun started several tasks without telling MPI
bool is_launched_by_mpi();

/// Starts MPI and joins all ranks of the job. Ranks of one host exchange through shared memory. Over several
/// hosts, a piece that stays in cache is reduced inside each host, then between the first ranks of the hosts,
/// in order of host, then handed out again. MPI ends when the last transport that came from it is destroyed;
/// it is left open, for the launcher to end the job, when that happens while an exception is on its way.
/// @param ranks_per_host  0: the hosts as they are; else pretend that so many consecutive ranks make one
/// @throws Error (usage) when the launcher and MPI disagree about the number of ranks
std::unique_ptr<Transport> join_mpi(int ranks_per_host);

}  // namespace bireme
