#include "core/autograd/partition.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>

#include "core/base/error.h"

namespace bireme {

namespace {

bool is_split(const Partition& partition) { return partition.axis >= 0 && partition.parts > 1; }

/// The part's share of a block.
AxisRun run_of_block(std::int64_t size, const Partition& partition, int block) {
  const std::int64_t length = partition.blocks.length(block, size), parts = partition.parts,
                     part = partition.part;
  const std::int64_t each = length / parts, larger = length % parts;
  return {.whole = partition.blocks.begin(block, size) + part * each + std::min(part, larger),
          .length = each + (part < larger ? 1 : 0)};
}

/// The whole and its part as matrices with a row for each entry of the dimensions before the split axis.
struct PartRows {
  std::vector<AxisRun> runs;
  std::int64_t inner = 1;  // entries of a row for each of the split axis
  Tensor whole, local;

  PartRows(const Tensor& whole_tensor, const Tensor& local_tensor, const Partition& partition)
      : runs(axis_runs(whole_tensor.shape(), partition)) {
    const Shape& shape = whole_tensor.shape();
    const int axis = std::max(partition.axis, 0);
    std::int64_t outer = 1, held = 0;
    const std::int64_t size = shape.rank() == 0 ? 1 : shape[axis];
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    for (const AxisRun& run : runs) held += run.length;
    whole = whole_tensor.reshape({outer, size * inner});
    local = local_tensor.reshape({outer, held * inner});
  }
};

}  // namespace

std::int64_t Blocks::shares() const {
  if (shares_.empty()) return std::max(count_, 1);
  std::int64_t total = 0;
  for (const std::int64_t share : shares_) total += share;
  return std::max<std::int64_t>(total, 1);
}

std::int64_t Blocks::begin(int block, std::int64_t size) const {
  std::int64_t before = 0;
  for (int b = 0; b < block; ++b) before += length(b, size);
  return before;
}

std::vector<AxisRun> axis_runs(const Shape& whole, const Partition& partition) {
  if (!is_split(partition)) return {{.length = whole.rank() == 0 ? 1 : whole[std::max(partition.axis, 0)]}};
  std::vector<AxisRun> runs;
  std::int64_t local = 0;
  for (int block = 0; block < partition.blocks.count(); ++block) {
    runs.push_back(run_of_block(whole[partition.axis], partition, block));
    runs.back().local = local;
    local += runs.back().length;
  }
  return runs;
}

Shape local_shape(const Shape& whole, const Partition& partition) {
  if (!is_split(partition)) return whole;
  assert(partition.axis < whole.rank() && 0 <= partition.part && partition.part < partition.parts);
  const std::int64_t size = whole[partition.axis], shares = partition.blocks.shares();
  bool divides = size % shares == 0;
  for (int block = 0; block < partition.blocks.count() && !partition.uneven; ++block)
    divides = divides && partition.blocks.length(block, size) % partition.parts == 0;
  if (!divides) {
    throw Error(ErrorKind::usage,
                fmt::format("dimension {} of {} does not divide into {} × {} equal parts", partition.axis,
                            to_string(whole), shares, partition.parts),
                "parallel.tensor", fmt::format("choose a degree that divides {}", size / shares));
  }
  Shape local = whole;
  local[partition.axis] = 0;
  for (const AxisRun& run : axis_runs(whole, partition)) local[partition.axis] += run.length;
  return local;
}

void copy_part(const Tensor& whole, const Tensor& local, const Partition& partition) {
  assert(local.shape() == local_shape(whole.shape(), partition));
  const PartRows rows(whole, local, partition);
  for (const AxisRun& run : rows.runs)
    copy_columns(rows.whole, rows.local,
                 {.from_column = run.whole * rows.inner,
                  .to_column = run.local * rows.inner,
                  .columns = run.length * rows.inner});
}

void place_part(const Tensor& local, const Tensor& whole, const Partition& partition) {
  assert(local.shape() == local_shape(whole.shape(), partition));
  const PartRows rows(whole, local, partition);
  for (const AxisRun& run : rows.runs)
    copy_columns(rows.local, rows.whole,
                 {.from_column = run.local * rows.inner,
                  .to_column = run.whole * rows.inner,
                  .columns = run.length * rows.inner});
}

std::int64_t global_index(std::int64_t local_index, const Shape& whole, const Partition& partition) {
  if (!is_split(partition)) return local_index;
  const std::int64_t size = whole[partition.axis];
  std::int64_t inner = 1, local_size = 0;
  for (int i = partition.axis + 1; i < whole.rank(); ++i) inner *= whole[i];
  for (int block = 0; block < partition.blocks.count(); ++block)
    local_size += run_of_block(size, partition, block).length;
  if (local_size == 0) return 0;  // an empty part has no elements to ask for
  const std::int64_t outer = local_index / (local_size * inner);
  std::int64_t entry = local_index / inner % local_size;
  for (int block = 0;; ++block) {
    const AxisRun run = run_of_block(size, partition, block);
    if (entry < run.length) return (outer * size + run.whole + entry) * inner + local_index % inner;
    entry -= run.length;
  }
}

}  // namespace bireme
