#include "tests/cuda_on_cpu/launches.h"

#include <cstdlib>
#include <fstream>

namespace cuda_on_cpu {

Launches& launches() {
  static struct Total : Launches {
    ~Total() {
      const char* path = std::getenv("CUDA_ON_CPU_LAUNCHES");
      if (path != nullptr)
        std::ofstream(path) << kernels << ' ' << products << ' ' << copies << ' ' << waits << ' ' << calls
                            << '\n';
    }
  } total;
  return total;
}

}  // namespace cuda_on_cpu
