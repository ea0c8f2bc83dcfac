#include "tests/support/devices.h"

#include "core/cpu/cpu_backend.h"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/devices.h"

namespace bireme::test {

namespace {

bool has_gpu() {
  static const bool found = cuda::find_devices().count > 0;  // asked once
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
  if (device.is_gpu) return cuda::make_backend({});
  const cpu::UseInstructionSet use(device.set);
  return make_cpu_backend(make_host_memory());
}

std::unique_ptr<Backend> make_test_backend() {
  return has_gpu() ? cuda::make_backend({}) : make_cpu_backend(make_host_memory());
}

const char* test_device() { return has_gpu() ? "cuda" : "cpu"; }

}  // namespace bireme::test
