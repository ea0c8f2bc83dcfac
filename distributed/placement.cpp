#include "distributed/placement.h"

#include <sched.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace bireme {

namespace {

int cores_of_host() { return static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))); }

int cores_allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : cores_of_host();
}

/// The first entry of OMP_NUM_THREADS, which may be a list for nested regions.
std::optional<int> threads_asked_for() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  if (text == nullptr) return std::nullopt;
  const int threads = std::atoi(text);
  return threads > 0 ? std::optional<int>(threads) : std::nullopt;
}

int share_of_cores(const Communicator& communicator) {
  return std::max(1, cores_of_host() / communicator.placement().local_size);
}

}  // namespace

int default_threads(const Communicator& communicator) {
  if (const auto asked = threads_asked_for()) return *asked;
  return std::min(cores_allowed(), share_of_cores(communicator));
}

std::optional<std::string> affinity_warning(const Communicator& communicator) {
  const int allowed = cores_allowed();
  const int wanted = threads_asked_for().value_or(share_of_cores(communicator));
  if (allowed >= wanted) return std::nullopt;
  return fmt::format(
      "rank {} may run on {} of the {} cores meant for it: start with mpirun --bind-to none, or --map-by "
      "slot:PE={}",
      communicator.rank(), allowed, wanted, wanted);
}

}  // namespace bireme
