#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/ops/attention/attention.h"
#include "core/tensor/tensor.h"

namespace bireme {

/// Stochastic depth (Huang et al. 2016): whether `image` (in row order) keeps `branch` (0 attention, 1 MLP)
/// of `block`. Empty: everything is kept and nothing is scaled, as in inference.
using KeepBranch = std::function<bool(int block, int branch, std::int64_t image)>;

/// What the draws of stochastic depth are keyed by: records and not ranks, so that the layout over ranks
/// never shows.
struct DropPathKeys {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;             ///< of the optimiser; below 2^32
  std::vector<std::int64_t> records;  ///< [B]; image i of a crop-major batch is record i mod B, in crop i / B
};

/// Block i of `depth` is dropped with probability rate · i / (depth - 1); 0 when there is one block.
double drop_rate(double rate, int block, int depth);

/// Independent draws for each (seed, record, crop, step, block, branch).
KeepBranch keyed_drop_path(DropPathKeys keys, double rate, int depth);

/// The factors of a branch for each row: 1 / (1 - rate) where the image keeps it, else 0.
/// @param segments  rows of each image, images in order; lengths of 1 give a factor for each image
/// @return          [rows_of(segments)] in `type`; undefined, which stands for 1, when nothing can be dropped
Tensor branch_factors(Memory& memory, const KeepBranch& keep, double rate, int block, int branch,
                      const Segments& segments, DType type);

}  // namespace bireme
