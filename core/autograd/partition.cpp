#include "core/autograd/partition.h"

#include <spdlog/fmt/fmt.h>

#include <cassert>
#include <cstring>

#include "core/base/error.h"

namespace bireme {

namespace {

/// Contiguous runs of a part: run k is elements [k · length, …) of the part and [(k · parts + part) · length,
/// …) of the whole, since axis and blocks only say how long a run is.
struct Runs {
  std::int64_t length = 0;
  std::int64_t count = 1;
  std::int64_t parts = 1;
  std::int64_t part = 0;

  std::int64_t whole_offset(std::int64_t run) const { return (run * parts + part) * length; }
};

bool is_split(const Partition& partition) { return partition.axis >= 0 && partition.parts > 1; }

Runs runs_of(const Shape& whole, const Partition& partition) {
  if (!is_split(partition)) return {.length = whole.elements()};
  Runs runs{.length = whole[partition.axis] / (partition.blocks * partition.parts),
            .count = partition.blocks,
            .parts = partition.parts,
            .part = partition.part};
  for (int i = 0; i < partition.axis; ++i) runs.count *= whole[i];
  for (int i = partition.axis + 1; i < whole.rank(); ++i) runs.length *= whole[i];
  return runs;
}

}  // namespace

Shape local_shape(const Shape& whole, const Partition& partition) {
  if (!is_split(partition)) return whole;
  assert(partition.axis < whole.rank() && 0 <= partition.part && partition.part < partition.parts);
  const std::int64_t pieces = std::int64_t{partition.blocks} * partition.parts;
  if (whole[partition.axis] % pieces != 0) {
    throw Error(ErrorKind::usage,
                fmt::format("dimension {} of {} does not divide into {} × {} equal parts", partition.axis,
                            to_string(whole), partition.blocks, partition.parts),
                "parallel.tensor",
                fmt::format("choose a degree that divides {}", whole[partition.axis] / partition.blocks));
  }
  Shape local = whole;
  local[partition.axis] /= partition.parts;
  return local;
}

void copy_part(const Tensor& whole, const Tensor& local, const Partition& partition) {
  assert(whole.dtype() == local.dtype() && local.shape() == local_shape(whole.shape(), partition));
  const Runs runs = runs_of(whole.shape(), partition);
  const auto size = static_cast<std::int64_t>(size_of(whole.dtype()));
  for (std::int64_t k = 0; k < runs.count; ++k) {
    std::memcpy(local.raw() + k * runs.length * size, whole.raw() + runs.whole_offset(k) * size,
                static_cast<std::size_t>(runs.length * size));
  }
}

void place_part(const Tensor& local, const Tensor& whole, const Partition& partition) {
  assert(whole.dtype() == local.dtype() && local.shape() == local_shape(whole.shape(), partition));
  const Runs runs = runs_of(whole.shape(), partition);
  const auto size = static_cast<std::int64_t>(size_of(whole.dtype()));
  for (std::int64_t k = 0; k < runs.count; ++k) {
    std::memcpy(whole.raw() + runs.whole_offset(k) * size, local.raw() + k * runs.length * size,
                static_cast<std::size_t>(runs.length * size));
  }
}

std::int64_t global_index(std::int64_t local_index, const Shape& whole, const Partition& partition) {
  const Runs runs = runs_of(whole, partition);
  return runs.whole_offset(local_index / runs.length) + local_index % runs.length;
}

}  // namespace bireme
