#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/cpu/features.h"
#include "core/ops/backend.h"
#include "core/tensor/tensor.h"

namespace bireme::test {

/// What an op is tested on: the CPU in one of its instruction sets, or a GPU.
struct TestDevice {
  bool is_gpu = false;
  cpu::InstructionSet set = {};
};

/// The CPU in each instruction set that this machine has, and the GPU where there is one. In programs that
/// are linked to the harness (tests/cuda_on_cpu) that is the harness.
std::vector<TestDevice> devices();

/// Kernels of a device. On a GPU tests reach its memory through on_host() and on_device().
std::unique_ptr<Backend> make_test_backend(const TestDevice& device);
/// On the GPU in programs that are linked to the harness, else on the CPU: for models and objectives.
std::unique_ptr<Backend> make_test_backend();

/// What run.device says where trainings are to compute as make_test_backend() does.
const char* test_device();

/// A test of ops, run once on every device: INSTANTIATE_TEST_SUITE_P(Devices, MyTest, on_every_device(),
/// device_name).
class DeviceTest : public ::testing::TestWithParam<TestDevice> {
 protected:
  DeviceTest() : backend_(make_test_backend(GetParam())) {}
  const Backend& backend() const { return *backend_; }
  Memory& memory() const { return backend_->memory(); }
  /// Memory in which tests write what ops read.
  Memory& host() const { return memory().host(); }
  /// A tensor of the host where kernels read it.
  Tensor here(const Tensor& tensor) const { return on_device(memory(), tensor); }

 private:
  std::unique_ptr<Backend> backend_;
};

inline auto on_every_device() { return ::testing::ValuesIn(devices()); }
inline std::string device_name(const ::testing::TestParamInfo<TestDevice>& info) {
  return info.param.is_gpu ? "gpu" : cpu::to_string(info.param.set);
}

}  // namespace bireme::test
