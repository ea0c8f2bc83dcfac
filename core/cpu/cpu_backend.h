#pragma once

#include <memory>

#include "core/ops/backend.h"

namespace bireme {

/// The kernels for host memory, in the widest instruction set that this CPU has, on OpenMP's threads.
std::unique_ptr<Backend> make_cpu_backend(std::shared_ptr<Memory> memory);

}  // namespace bireme
