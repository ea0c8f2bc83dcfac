#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bireme {

/// What this process may use of the machine it runs on.
struct Machine {
  std::string host, cpu_model;
  std::vector<std::string>
      instructions;  ///< those that kernels are chosen by, such as "avx2" and "avx512_bf16"
  bool has_fast_bf16 =
      false;  ///< AVX512-BF16 or AMX: matrix products in bf16 run on instructions of their own
  std::int64_t cores_online = 0;  ///< logical cores of the machine
  std::vector<int> affinity;      ///< cores that this process may run on
  std::int64_t threads = 0;       ///< that OpenMP will start
  std::string threads_reason;     ///< "OMP_NUM_THREADS", or "the cores this process may use"
  std::int64_t memory_bytes =
      0;  ///< of the machine, or the limit of this process's control group if that is less
  std::int64_t memory_available_bytes = 0;
};

Machine this_machine();

/// 0, 1, 2, 5 → "0-2,5".
std::string core_ranges(const std::vector<int>& cores);

/// True if a program of that name lies on the PATH.
bool is_program_installed(const std::string& name);

}  // namespace bireme
