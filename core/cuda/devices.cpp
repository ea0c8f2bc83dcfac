#include "core/cuda/devices.h"

#include <cuda_runtime_api.h>
#include <spdlog/fmt/fmt.h>

namespace bireme::cuda {

DeviceReport find_devices() {
  DeviceReport report{.built = true, .count = 0, .explanation = {}};
  if (const cudaError_t status = cudaGetDeviceCount(&report.count); status != cudaSuccess) {
    report.count = 0;
    cudaGetLastError();  // asking is no failure of what comes later
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    // Without any driver its version is 0, and the runtime calls that too old as well.
    if (status == cudaErrorInsufficientDriver && driver > 0) {
      report.explanation =
          fmt::format("the driver is too old: it supports CUDA {}.{}, this binary needs {}.{}", driver / 1000,
                      driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    } else {
      report.explanation = driver == 0 ? "no GPU is present: there is no NVIDIA driver"
                                       : std::string("no GPU is present: ") + cudaGetErrorString(status);
    }
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
