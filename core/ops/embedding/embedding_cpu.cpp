#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/embedding/embedding_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <cstring>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/embedding/embedding_kernels.h"
#include "core/ops/embedding/look_up_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// to[c] += weight · from[c]
template <class L>
void add_scaled(const L* from, L weight, L* to, std::int64_t channels) {
  const Lanes<L> d;
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    store(d, hn::MulAdd(load(d, from + c, part), hn::Set(d, weight), load(d, to + c, part)), to + c, part);
  });
}

/// A matrix of weights, read as it is or transposed.
template <class L>
struct Weights {
  const L* data;
  std::int64_t outputs, inputs;
  bool is_transposed;

  L at(std::int64_t output, std::int64_t input) const {
    return is_transposed ? data[input * outputs + output] : data[output * inputs + input];
  }
};

/// to[i, j] (+)= sum over a, b of row(i, a) · column(j, b) · from[a, b]: columns first, then rows. Most
/// weights are 0: four taps each.
template <class L>
void resize(const L* from, const Weights<L>& row, const Weights<L>& column, std::int64_t channels,
            bool accumulate, L* to, Memory& memory) {
  const Tensor between(memory, {row.inputs, column.outputs, channels}, TypeOf<L>::value);
  L* middle = between.data<L>();
  std::fill_n(middle, between.elements(), L{0});
  if (!accumulate) std::fill_n(to, row.outputs * column.outputs * channels, L{0});
  parallel_rows(row.inputs, column.outputs * column.inputs * 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t a = begin; a < end; ++a)
      for (std::int64_t j = 0; j < column.outputs; ++j)
        for (std::int64_t b = 0; b < column.inputs; ++b)
          if (const L weight = column.at(j, b); weight != 0)
            add_scaled(from + (a * column.inputs + b) * channels, weight,
                       middle + (a * column.outputs + j) * channels, channels);
  });
  const std::int64_t line = column.outputs * channels;
  parallel_rows(row.outputs, line * std::int64_t{sizeof(L)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t a = 0; a < row.inputs; ++a)
        if (const L weight = row.at(i, a); weight != 0)
          add_scaled(middle + a * line, weight, to + i * line, line);
  });
}

/// Where a segment starts in the rows of tokens; its patches start `picture` rows earlier, as no class token
/// lies among them.
struct SegmentStart {
  std::int64_t row = 0, picture = 0;
};

template <class P>
void assemble_forward(const AssembleTokensForward& a) {
  using L = Lane<P>;
  const Lanes<P> d;
  const std::int64_t channels = a.y.channels();
  SegmentStart start;
  for (std::size_t s = 0; s < a.segments.size(); ++s) {
    const auto [count, length] = a.segments[s];
    const L* positions = a.positions[s].data<L>();
    L* y = a.y.data<L>() + start.row * channels;
    const P* patches = a.patches.data<P>() + (start.row - start.picture) * channels;
    parallel_rows(count * length, 3 * channels * std::int64_t{sizeof(L)},
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t r = begin; r < end; ++r) {
                      const std::int64_t picture = r / length, token = r % length;
                      const auto add = [&](const auto* from) HWY_ATTR {
                        for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                          const auto position = load(d, positions + token * channels + c, part);
                          store(d, hn::Add(load(d, from + c, part), position), y + r * channels + c, part);
                        });
                      };
                      if (token == 0) {
                        add(a.class_token.data<L>());
                      } else {
                        add(patches + (r - picture - 1) * channels);
                      }
                    }
                  });
    start.row += count * length;
    start.picture += count;
  }
}

/// One pass over dy: token by token, a sum over the pictures in order beside the copy to the patches.
template <class P>
void assemble_backward(const AssembleTokensBackward& a, Memory& memory) {
  using L = Lane<P>;
  const Lanes<P> d;
  const std::int64_t channels = a.dy.channels();
  const auto segments = static_cast<std::int64_t>(a.segments.size());
  const Tensor class_sums(memory, {segments, channels}, TypeOf<L>::value);
  SegmentStart start;
  for (std::int64_t s = 0; s < segments; ++s) {
    const auto [count, length] = a.segments[static_cast<std::size_t>(s)];
    const Target& dpositions = a.dpositions[static_cast<std::size_t>(s)];
    const L* dy = a.dy.data<L>() + start.row * channels;
    P* dpatches = a.dpatches ? a.dpatches.tensor.data<P>() + (start.row - start.picture) * channels : nullptr;
    const Tensor sums(memory, {length, channels}, TypeOf<L>::value);
    std::fill_n(sums.data<L>(), sums.elements(), L{0});
    parallel_rows(
        length, count * channels * std::int64_t{sizeof(L)}, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t token = begin; token < end; ++token) {
            L* sum = sums.data<L>() + token * channels;
            for (std::int64_t picture = 0; picture < count; ++picture) {
              const L* row = dy + (picture * length + token) * channels;
              const bool is_patch = token > 0 && dpatches != nullptr;
              P* patch = is_patch ? dpatches + (picture * (length - 1) + token - 1) * channels : nullptr;
              for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                const auto v = load(d, row + c, part);
                store(d, hn::Add(load(d, sum + c, part), v), sum + c, part);
                if (is_patch) put(d, v, patch + c, a.dpatches.accumulate, part);
              });
            }
            if (!dpositions) continue;
            L* to = dpositions.tensor.data<L>() + token * channels;
            for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
              put(d, load(d, sum + c, part), to + c, dpositions.accumulate, part);
            });
          }
        });
    std::copy_n(sums.data<L>(), channels, class_sums.data<L>() + s * channels);
    start.row += count * length;
    start.picture += count;
  }
  if (!a.dclass_token) return;
  L* to = a.dclass_token.tensor.data<L>();
  if (!a.dclass_token.accumulate) std::fill_n(to, channels, L{0});
  for (std::int64_t s = 0; s < segments; ++s)
    add_scaled(class_sums.data<L>() + s * channels, L{1}, to, channels);
}

template <class T>
void select_backward(const SelectRowsBackward& a) {
  const Lanes<T> d;
  const std::int64_t channels = a.dy.channels(), elements = a.dx.tensor.elements();
  if (!a.dx.accumulate) {
    parallel_chunks(chunks_of(elements, sizeof(T)), [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      std::memset(a.dx.tensor.data<T>() + begin, 0, static_cast<std::size_t>(end - begin) * sizeof(T));
    });
  }
  for (std::size_t i = 0; i < a.rows.size(); ++i) {
    const T* dy = a.dy.data<T>() + static_cast<std::int64_t>(i) * channels;
    T* dx = a.dx.tensor.data<T>() + a.rows[i] * channels;
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      put(d, load(d, dy + c, part), dx + c, a.dx.accumulate, part);
    });
  }
}

class CpuEmbedding final : public EmbeddingKernels {
 public:
  explicit CpuEmbedding(Memory& memory) : memory_(memory) {}

  void look_up(const LookUpForward& a) const override {
    dispatch_float(a.table.dtype(), [&]<class T>(Type<T>) { look_up_forward<T>(a); });
  }
  void look_up(const LookUpBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) { look_up_backward<T>(a); });
  }
  void resize_grid(const ResizeGridForward& a) const override {
    dispatch_lane(a.grid.dtype(), [&]<class L>(Type<L>) {
      resize<L>(a.grid.data<L>(), weights<L>(a.row_weights, false), weights<L>(a.column_weights, false),
                a.grid.channels(), false, a.y.data<L>(), memory_);
    });
  }
  void resize_grid(const ResizeGridBackward& a) const override {
    dispatch_lane(a.dy.dtype(), [&]<class L>(Type<L>) {
      resize<L>(a.dy.data<L>(), weights<L>(a.row_weights, true), weights<L>(a.column_weights, true),
                a.dy.channels(), a.dgrid.accumulate, a.dgrid.tensor.data<L>(), memory_);
    });
  }
  void assemble_tokens(const AssembleTokensForward& a) const override {
    dispatch_float(a.patches.dtype(), [&]<class P>(Type<P>) { assemble_forward<P>(a); });
  }
  void assemble_tokens(const AssembleTokensBackward& a) const override {
    const DType type = a.dpatches ? a.dpatches.tensor.dtype() : a.dy.dtype();
    dispatch_float(type, [&]<class P>(Type<P>) { assemble_backward<P>(a, memory_); });
  }
  void select_rows(const SelectRowsForward& a) const override {
    const auto row_bytes = a.x.channels() * static_cast<std::int64_t>(size_of(a.x.dtype()));
    parallel_rows(a.y.rows(), 2 * row_bytes, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        std::memcpy(a.y.raw() + i * row_bytes, a.x.raw() + a.rows[static_cast<std::size_t>(i)] * row_bytes,
                    static_cast<std::size_t>(row_bytes));
    });
  }
  void select_rows(const SelectRowsBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) { select_backward<T>(a); });
  }

 private:
  template <class L>
  static Weights<L> weights(const Tensor& matrix, bool is_transposed) {
    const std::int64_t rows = matrix.shape().front(), columns = matrix.shape().back();
    return {matrix.data<L>(), is_transposed ? columns : rows, is_transposed ? rows : columns, is_transposed};
  }

  Memory& memory_;
};

std::unique_ptr<EmbeddingKernels> make_embedding(Memory& memory) {
  return std::make_unique<CpuEmbedding>(memory);
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_embedding);
std::unique_ptr<EmbeddingKernels> make_embedding(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_embedding)(memory);
}

}  // namespace bireme::cpu
#endif
