#include "distributed/mpi_library.h"

#include <mpi.h>

#include <array>

namespace bireme {

std::string mpi_library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "unknown";
  const std::string version(text.data());
  // Open MPI goes on with its package, MPICH with its build options.
  return version.substr(0, version.find_first_of(",\n"));
}

}  // namespace bireme
