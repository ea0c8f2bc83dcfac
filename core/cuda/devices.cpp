#include "core/cuda/devices.h"

#include <cuda_runtime_api.h>

namespace bireme::cuda {

DeviceReport find_devices() {
  DeviceReport report{.built = true, .count = 0, .explanation = {}};
  if (const cudaError_t status = cudaGetDeviceCount(&report.count); status != cudaSuccess) {
    report.count = 0;
    report.explanation = std::string("no GPU is present: ") + cudaGetErrorString(status);
    return report;
  }
  for (int i = 0; i < report.count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    report.explanation += (i > 0 ? ", " : "") + std::string(properties.name);
  }
  return report;
}

}  // namespace bireme::cuda
