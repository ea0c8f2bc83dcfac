#include "tests/support/devices.h"

#include <cstdlib>

#include "core/cpu/cpu_backend.h"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/devices.h"

namespace bireme::test {

namespace {

/// Asked once. Kernels are waited for, since tests read results without asking: that is decided before the
/// first one.
bool has_gpu() {
  static const bool found = [] {
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);  // NOLINT(concurrency-mt-unsafe): before any thread
    return cuda::find_devices().count > 0;
  }();
  return found;
}

}  // namespace

std::vector<TestDevice> devices() {
  std::vector<TestDevice> all;
  for (const cpu::InstructionSet set : cpu::supported_instruction_sets()) all.push_back({.set = set});
  if (has_gpu()) all.push_back({.is_gpu = true});
  return all;
}

std::unique_ptr<Backend> make_test_backend(const TestDevice& device) {
  if (device.is_gpu) return cuda::make_backend({.managed = true});
  const cpu::UseInstructionSet use(device.set);
  return make_cpu_backend(make_host_memory());
}

std::unique_ptr<Backend> make_test_backend() {
  return has_gpu() ? cuda::make_backend({.managed = true}) : make_cpu_backend(make_host_memory());
}

const char* test_device() { return has_gpu() ? "cuda" : "cpu"; }

}  // namespace bireme::test
