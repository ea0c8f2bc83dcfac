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

/// The library that computes attention in bf16 on GPUs.
struct CudnnReport {
  std::string version;      ///< empty where there is none, so that an own kernel computes it
  std::string explanation;  ///< one line: what it is used for, or why it is not
};

CudnnReport find_cudnn();

}  // namespace bireme::cuda
