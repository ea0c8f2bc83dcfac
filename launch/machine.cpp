#include "launch/machine.h"

#include <omp.h>
#include <sched.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/cpu/features.h"

namespace bireme {

namespace {

/// The value of the first line "NAME : value" or "NAME: value" of a file of the kernel's.
std::string kernel_value(const char* file, std::string_view name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(name)) continue;
    const auto begin = line.find_first_not_of(" \t:", name.size());
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::int64_t memory_value(std::string_view name) {
  std::int64_t kibibytes = 0;
  std::istringstream(kernel_value("/proc/meminfo", name)) >> kibibytes;
  return kibibytes * 1024;
}

std::vector<std::string> find_instructions() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) found.emplace_back("sse4.2");
  if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) found.emplace_back("avx512bw");
  if (__builtin_cpu_supports("avx512vnni")) found.emplace_back("avx512_vnni");
  if (__builtin_cpu_supports("avx512bf16")) found.emplace_back("avx512_bf16");
  unsigned a = 0, b = 0, c = 0, d = 0;
  // Intel's manual, leaf 7: EDX bit 22 is AMX-BF16, bit 24 AMX-TILE.
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1U) != 0 && (d >> 24 & 1U) != 0)
    found.emplace_back("amx_bf16");
#endif
  return found;
}

std::vector<int> find_affinity() {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  machine.host = host;
  machine.cpu_model = kernel_value("/proc/cpuinfo", "model name");
  if (machine.cpu_model.empty()) machine.cpu_model = "unknown";
  machine.instructions = find_instructions();
  machine.has_fast_bf16 = cpu::has_bf16_instructions();
  machine.cores_online = sysconf(_SC_NPROCESSORS_ONLN);
  machine.affinity = find_affinity();
  machine.threads = omp_get_max_threads();
  machine.threads_reason =
      std::getenv("OMP_NUM_THREADS") != nullptr ? "OMP_NUM_THREADS" : "the cores this process may use";
  machine.memory_bytes = memory_value("MemTotal");
  machine.memory_available_bytes = memory_value("MemAvailable");
  std::int64_t limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && limit > 0 && limit < machine.memory_bytes) {
    machine.memory_bytes = limit;
    machine.memory_available_bytes = std::min(machine.memory_available_bytes, limit);
  }
  return machine;
}

std::string core_ranges(const std::vector<int>& cores) {
  std::string text;
  for (std::size_t begin = 0; begin < cores.size();) {
    std::size_t end = begin;
    while (end + 1 < cores.size() && cores[end + 1] == cores[end] + 1) ++end;
    if (!text.empty()) text += ',';
    text += end == begin ? fmt::format("{}", cores[begin]) : fmt::format("{}-{}", cores[begin], cores[end]);
    begin = end + 1;
  }
  return text;
}

bool is_program_installed(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((std::filesystem::path(folder) / name).c_str(), X_OK) == 0) return true;
  return false;
}

}  // namespace bireme
