#include "core/cuda/devices.h"

namespace bireme::cuda {

DeviceReport find_devices() {
  return {.built = false,
          .count = 0,
          .explanation = "this binary was built without CUDA (configure with -DBIREME_CUDA=ON)"};
}

}  // namespace bireme::cuda
