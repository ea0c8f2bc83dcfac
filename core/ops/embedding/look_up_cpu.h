// Rows of an embedding table on the CPU, for embedding_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_EMBEDDING_LOOK_UP_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_EMBEDDING_LOOK_UP_CPU_H_
#undef BIREME_CORE_OPS_EMBEDDING_LOOK_UP_CPU_H_
#else
#define BIREME_CORE_OPS_EMBEDDING_LOOK_UP_CPU_H_
#endif

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/embedding/embedding_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

template <class T>
void look_up_forward(const LookUpForward& a) {
  const std::int64_t channels = a.table.channels(), held = a.table.rows();
  const auto bytes = static_cast<std::size_t>(channels) * sizeof(T);
  parallel_rows(a.y.rows(), 2 * channels * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const std::int64_t row = a.tokens.data<std::int32_t>()[r] - a.first;
                    T* y = a.y.data<T>() + r * channels;
                    if (row >= 0 && row < held) {
                      std::memcpy(y, a.table.data<T>() + row * channels, bytes);
                    } else {
                      std::memset(y, 0, bytes);
                    }
                  }
                });
}

/// Positions of this rank's tokens, sorted by (token, position), as token << 32 | position.
inline std::vector<std::uint64_t> sorted_positions(const Tensor& tokens, std::int64_t first,
                                                   std::int64_t held) {
  std::vector<std::uint64_t> positions;
  positions.reserve(static_cast<std::size_t>(tokens.elements()));
  for (std::int64_t r = 0; r < tokens.elements(); ++r) {
    const std::int64_t row = tokens.data<std::int32_t>()[r] - first;
    if (row >= 0 && row < held)
      positions.push_back(static_cast<std::uint64_t>(row) << 32 | static_cast<std::uint64_t>(r));
  }
  std::sort(positions.begin(), positions.end());
  return positions;
}

/// One task per token: the sum of its rows of dy, in order, so nothing is ever added to by two threads.
template <class T>
void look_up_backward(const LookUpBackward& a) {
  const Lanes<T> d;
  const std::int64_t channels = a.dy.channels(), held = a.dtable.tensor.rows();
  T* table = a.dtable.tensor.data<T>();
  if (!a.dtable.accumulate) {
    parallel_rows(held, channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
      std::fill(table + begin * channels, table + end * channels, T{});
    });
  }
  const std::vector<std::uint64_t> positions = sorted_positions(a.tokens, a.first, held);
  std::vector<std::size_t> starts;  // of the runs of one token
  for (std::size_t i = 0; i < positions.size(); ++i)
    if (i == 0 || positions[i] >> 32 != positions[i - 1] >> 32) starts.push_back(i);
  const auto tokens = static_cast<std::int64_t>(starts.size());
  starts.push_back(positions.size());
  parallel_rows(tokens, 2 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::size_t start = starts[static_cast<std::size_t>(t)],
                        stop = starts[static_cast<std::size_t>(t) + 1];
      T* to = table + static_cast<std::int64_t>(positions[start] >> 32) * channels;
      for (std::size_t i = start; i < stop; ++i) {
        const T* dy = a.dy.data<T>() + static_cast<std::int64_t>(positions[i] & 0xffffffffU) * channels;
        for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
          store(d, hn::Add(load(d, to + c, part), load(d, dy + c, part)), to + c, part);
        });
      }
    }
  });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
