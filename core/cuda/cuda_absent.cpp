#include "core/base/error.h"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/devices.h"

namespace bireme::cuda {

DeviceReport find_devices() {
  return {.built = false,
          .count = 0,
          .explanation = "this binary was built without CUDA (configure with -DBIREME_CUDA=ON)"};
}

CudnnReport find_cudnn() {
  return {.version = "", .explanation = "not built in: this binary was built without CUDA"};
}

std::unique_ptr<Backend> make_backend(const BackendOptions&) {
  throw Error(ErrorKind::no_device, find_devices().explanation, "run.device", "use --run.device cpu");
}

}  // namespace bireme::cuda
