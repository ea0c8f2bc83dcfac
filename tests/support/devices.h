#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/features.h"

namespace bireme::test {

/// What ops are tested on: the CPU in each instruction set that this machine has.
inline std::vector<cpu::InstructionSet> devices() { return cpu::supported_instruction_sets(); }

/// A test of ops, run once on every device: INSTANTIATE_TEST_SUITE_P(Devices, MyTest, on_every_device(),
/// device_name).
class DeviceTest : public ::testing::TestWithParam<cpu::InstructionSet> {
 protected:
  DeviceTest() {
    const cpu::UseInstructionSet use(GetParam());
    backend_ = make_cpu_backend(make_host_memory());
  }
  const Backend& backend() const { return *backend_; }
  Memory& memory() const { return backend_->memory(); }

 private:
  std::unique_ptr<Backend> backend_;
};

inline auto on_every_device() { return ::testing::ValuesIn(devices()); }
inline std::string device_name(const ::testing::TestParamInfo<cpu::InstructionSet>& info) {
  return cpu::to_string(info.param);
}

}  // namespace bireme::test
