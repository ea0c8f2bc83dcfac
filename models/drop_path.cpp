#include "models/drop_path.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "core/tensor/random.h"

namespace bireme {

double drop_rate(double rate, int block, int depth) { return depth > 1 ? rate * block / (depth - 1) : 0; }

KeepBranch keyed_drop_path(DropPathKeys keys, double rate, int depth) {
  if (rate == 0) return {};
  assert(!keys.records.empty());
  return [keys = std::move(keys), rate, depth](int block, int branch, std::int64_t image) {
    const auto images = static_cast<std::int64_t>(keys.records.size());
    const auto crop = static_cast<std::uint64_t>(image / images);
    // Fields side by side, so that no two draws share a stream.
    const std::uint64_t detail =
        keys.step << 32 | crop << 16 | static_cast<std::uint64_t>(2 * block + branch);
    RandomStream random(keys.seed,
                        static_cast<std::uint64_t>(keys.records[static_cast<std::size_t>(image % images)]),
                        RandomUse::drop_path, detail);
    return random.uniform() >= drop_rate(rate, block, depth);
  };
}

namespace {

template <class T>
void write_factors(const KeepBranch& keep, double rate, int block, int branch, const Segments& segments,
                   T* row) {
  std::int64_t image = 0;
  for (const Segment& segment : segments) {
    for (std::int64_t i = 0; i < segment.count; ++i, ++image) {
      const T factor = keep(block, branch, image) ? static_cast<T>(1 / (1 - rate)) : T{0};
      row = std::fill_n(row, segment.length, factor);
    }
  }
}

}  // namespace

Tensor branch_factors(Memory& memory, const KeepBranch& keep, double rate, int block, int branch,
                      const Segments& segments, DType type) {
  if (!keep || rate == 0) return {};
  const Tensor factors(memory.host(), {rows_of(segments)}, type);
  if (type == DType::f64) {
    write_factors(keep, rate, block, branch, segments, factors.data<double>());
  } else {
    write_factors(keep, rate, block, branch, segments, factors.data<float>());
  }
  return on_device(memory, factors);
}

}  // namespace bireme
