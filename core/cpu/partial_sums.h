#pragma once

#include <algorithm>
#include <cstdint>

#include "core/autograd/tape.h"
#include "core/cpu/parallel.h"
#include "core/tensor/tensor.h"

namespace bireme::cpu {

/// Sums over rows in a fixed order: each chunk of rows has a line of `width` numbers of its own, and the
/// lines are added in order.
template <class L>
class PartialSums {
 public:
  PartialSums(Memory& memory, std::int64_t rows, std::int64_t width)
      : chunks_(partial_chunks(rows, width)),
        width_(width),
        lines_(memory, {chunks_.count(), width}, TypeOf<L>::value) {}

  /// Calls f(begin, end, line) for every chunk of rows, spread over the threads; `line` starts at 0.
  template <class F>
  void over_rows(F&& f) {
    parallel_chunks(chunks_, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
      L* line = lines_.data<L>() + chunk * width_;
      std::fill_n(line, width_, L{0});
      f(begin, end, line);
    });
  }

  /// Entries [begin, begin + count) of the total, written or added to `to`.
  void total(std::int64_t begin, std::int64_t count, L* to, bool accumulate = false) const {
    if (!accumulate) std::fill_n(to, count, L{0});
    for (std::int64_t chunk = 0; chunk < chunks_.count(); ++chunk) {
      const L* line = lines_.data<L>() + chunk * width_ + begin;
      for (std::int64_t i = 0; i < count; ++i) to[i] += line[i];
    }
  }
  /// The same into a gradient of `count` elements, if it is wanted.
  void total(std::int64_t begin, std::int64_t count, const Target& to) const {
    if (to) total(begin, count, to.tensor.data<L>(), to.accumulate);
  }

 private:
  Chunks chunks_;
  std::int64_t width_;
  Tensor lines_;
};

}  // namespace bireme::cpu
