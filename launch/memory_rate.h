#pragma once

#include <cstdint>

#include "core/tensor/memory.h"

namespace bireme {

/// The best rate, in bytes a second, at which all threads together read a buffer of this size again and
/// again: what decoding, which reads every weight once a token, is held against. A buffer that fits a cache
/// is read from there, as such weights are.
double measure_read_rate(std::int64_t bytes, Memory& memory);

}  // namespace bireme
