#include "launch/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "launch/numbers.h"

namespace bireme {

namespace {

int environment_integer(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  const auto value = text == nullptr ? std::nullopt : parse_integer(text);
  return value ? static_cast<int>(*value) : otherwise;
}

}  // namespace

LaunchedAs launched_as() {
  struct Source {
    const char *rank, *size, *launcher;
  };
  static constexpr Source sources[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpirun (Open MPI)"},
                                       {"PMI_RANK", "PMI_SIZE", "PMI"},
                                       {"PMIX_RANK", "SLURM_NTASKS", "PMIx"}};
  for (const Source& source : sources)
    if (std::getenv(source.rank) != nullptr)
      return {environment_integer(source.rank, 0), environment_integer(source.size, 1), source.launcher};
  if (std::getenv("SLURM_STEP_ID") != nullptr && std::getenv("SLURM_PROCID") != nullptr)
    return {environment_integer("SLURM_PROCID", 0), environment_integer("SLURM_STEP_NUM_TASKS", 1), "srun"};
  return {};
}

int terminal_columns(int file_descriptor) {
  const char* type = std::getenv("TERM");
  if (isatty(file_descriptor) == 0 || type == nullptr || std::string_view(type) == "dumb") return 0;
  winsize size{};
  return ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace bireme
