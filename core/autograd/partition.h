#pragma once

#include <initializer_list>
#include <vector>

#include "core/tensor/tensor.h"

namespace bireme {

/// The logical blocks that a fused dimension consists of, by relative size: 3 is three equal ones (query,
/// key, value), {4, 1, 1} makes the first four times as long as the others (fewer key and value than query
/// heads).
class Blocks {
 public:
  Blocks(int equal = 1) : count_(equal) {}  // NOLINT(google-explicit-constructor)
  Blocks(std::initializer_list<std::int64_t> shares)
      : count_(static_cast<int>(shares.size())), shares_(shares) {}

  int count() const { return count_; }
  std::int64_t share(int block) const {
    return shares_.empty() ? 1 : shares_[static_cast<std::size_t>(block)];
  }
  /// Of all blocks together.
  std::int64_t shares() const;
  /// Where a block starts in a dimension of `size`, and how long it is there; block count() starts at the
  /// end.
  std::int64_t begin(int block, std::int64_t size) const;
  std::int64_t length(int block, std::int64_t size) const { return size / shares() * share(block); }

  friend bool operator==(const Blocks&, const Blocks&) = default;

 private:
  int count_;
  std::vector<std::int64_t> shares_;
};

/// How a rank's part lies in a whole tensor (tensor parallelism): split over `parts` ranks along `axis`; each
/// logical block of the axis is split by itself. axis -1: not split.
struct Partition {
  int axis = -1;
  Blocks blocks = 1;
  int part = 0;
  int parts = 1;
  bool uneven = false;  ///< a length that does not divide gives one more to each of the first parts
};

/// Consecutive entries of the split axis.
struct AxisRun {
  std::int64_t whole = 0;  ///< where they start in the whole tensor
  std::int64_t local = 0;  ///< and in the part
  std::int64_t length = 0;
};
/// The part's entries of the axis, one run for each block; axis 0 whole where nothing is split.
std::vector<AxisRun> axis_runs(const Shape& whole, const Partition& partition);

/// @throws Error (usage) when the axis does not divide evenly, and is not allowed to be uneven
Shape local_shape(const Shape& whole, const Partition& partition);
/// Copies this rank's part out of, or into, the whole tensor. Tensors of equal type, of one device.
void copy_part(const Tensor& whole, const Tensor& local, const Partition& partition);
void place_part(const Tensor& local, const Tensor& whole, const Partition& partition);
/// The position in the whole tensor of element `local_index` of the part, so that initial values do not
/// depend on the layout.
std::int64_t global_index(std::int64_t local_index, const Shape& whole, const Partition& partition);

}  // namespace bireme
