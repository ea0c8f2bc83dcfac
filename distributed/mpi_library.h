#pragma once

#include <string>

namespace bireme {

/// The MPI library that this process runs with, in one line: "Open MPI v4.1.4". May be asked before MPI is
/// started.
std::string mpi_library_version();

}  // namespace bireme
