#pragma once

#include <string>

namespace bireme::cuda {

/// What the CUDA runtime finds on this machine.
struct DeviceReport {
  bool built = false;       ///< this binary was built with the CUDA toolkit
  int count = 0;            ///< usable GPUs
  std::string explanation;  ///< one line: names of the GPUs, or why there are none
};

DeviceReport find_devices();

}  // namespace bireme::cuda
