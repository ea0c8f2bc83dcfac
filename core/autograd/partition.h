#pragma once

#include "core/tensor/tensor.h"

namespace bireme {

/// How a rank's part lies in a whole tensor (tensor parallelism): split over `parts` ranks along `axis`; the
/// axis consists of `blocks` equal logical blocks (3 for fused query, key, value), each of which is split by
/// itself. axis -1: not split.
struct Partition {
  int axis = -1;
  int blocks = 1;
  int part = 0;
  int parts = 1;
};

/// @throws Error (usage) when the axis does not divide evenly
Shape local_shape(const Shape& whole, const Partition& partition);
/// Copies this rank's part out of, or into, the whole tensor. Host tensors of equal type.
void copy_part(const Tensor& whole, const Tensor& local, const Partition& partition);
void place_part(const Tensor& local, const Tensor& whole, const Partition& partition);
/// The position in the whole tensor of element `local_index` of the part, so that initial values do not
/// depend on the layout.
std::int64_t global_index(std::int64_t local_index, const Shape& whole, const Partition& partition);

}  // namespace bireme
