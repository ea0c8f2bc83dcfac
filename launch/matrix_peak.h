#pragma once

#include "core/cpu/onednn.h"
#include "core/ops/backend.h"
#include "distributed/communicator.h"

namespace bireme {

/// Best rate of one product over a short time, in operations a second, two for each multiply-add.
double product_rate(const cpu::MatrixProducts& products, const cpu::Product& product, Memory& memory,
                    double seconds);

/// What all ranks together were seen to do at matrix products of this type, at once, in operations a second:
/// what the speed of a training is held against. Collective; takes a fifth of a second.
double measure_matrix_peak(DType type, const Backend& backend, Communicator& world);

}  // namespace bireme
