#include "core/ops/linear/block_linear_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/linear/block_linear_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <vector>

#include "core/cpu/panels-inl.h"
#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/cpu/small_products-inl.h"
#include "core/ops/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// Rows that go through a block together: their panels stay in the first-level cache.
constexpr std::int64_t kBlockRows = 48;

struct BlockSizes {
  std::int64_t rows, blocks, out, in, y_stride, y_block;

  template <class A>
  BlockSizes(const A& a, std::int64_t row_count)
      : rows(row_count),
        blocks(a.weight.shape()[0]),
        out(a.weight.shape()[a.transposed ? 2 : 1]),
        in(a.weight.shape()[a.transposed ? 1 : 2]),
        y_stride(blocks * a.parts * out),
        y_block(a.parts * out) {}
};

// ---- Blocks of 4 × 4 in fp32: a vector holds whole blocks, and broadcasts within them.

/// to[j][4·n + o] = W[n, o, j], or with `transposed` W[n, j, o].
inline std::vector<float> four_tables(const Tensor& weight, bool transposed) {
  const std::int64_t channels = 4 * weight.shape()[0];
  std::vector<float> tables(static_cast<std::size_t>(4 * channels));
  for (std::int64_t n = 0; n < channels / 4; ++n)
    for (std::int64_t o = 0; o < 4; ++o)
      for (std::int64_t j = 0; j < 4; ++j)
        tables[static_cast<std::size_t>(j * channels + 4 * n + o)] =
            weight.data<float>()[n * 16 + (transposed ? j * 4 + o : o * 4 + j)];
  return tables;
}

/// y (+)= x through the blocks of the tables, in one pass.
template <class X, class Y>
void four_product(const X* x, const std::vector<float>& tables, Y* y, std::int64_t rows,
                  std::int64_t channels, bool accumulate) {
  const hn::ScalableTag<float> d;
  const float* table = tables.data();
  parallel_rows(rows, channels * std::int64_t{sizeof(X) + sizeof(Y)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r)
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      const auto v = load(d, x + r * channels + c, part);
                      auto total = hn::Mul(hn::Broadcast<0>(v), load(d, table + c, part));
                      total = hn::MulAdd(hn::Broadcast<1>(v), load(d, table + channels + c, part), total);
                      total = hn::MulAdd(hn::Broadcast<2>(v), load(d, table + 2 * channels + c, part), total);
                      total = hn::MulAdd(hn::Broadcast<3>(v), load(d, table + 3 * channels + c, part), total);
                      put(d, total, y + r * channels + c, accumulate, part);
                    });
                });
}

template <class X, class Y>
void four_weight_gradient(const Y* dy, const X* x, const Target& dweight, std::int64_t rows,
                          std::int64_t channels, Memory& memory) {
  const hn::ScalableTag<float> d;
  PartialSums<float> sums(memory, rows, 4 * channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, float* line) {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      auto first = hn::Zero(d), second = hn::Zero(d), third = hn::Zero(d), fourth = hn::Zero(d);
      for (std::int64_t r = begin; r < end; ++r) {
        const auto v = load(d, x + r * channels + c, part), g = load(d, dy + r * channels + c, part);
        first = hn::MulAdd(g, hn::Broadcast<0>(v), first);
        second = hn::MulAdd(g, hn::Broadcast<1>(v), second);
        third = hn::MulAdd(g, hn::Broadcast<2>(v), third);
        fourth = hn::MulAdd(g, hn::Broadcast<3>(v), fourth);
      }
      store(d, first, line + c, part);
      store(d, second, line + channels + c, part);
      store(d, third, line + 2 * channels + c, part);
      store(d, fourth, line + 3 * channels + c, part);
    });
  });
  std::vector<float> total(static_cast<std::size_t>(4 * channels));
  sums.total(0, 4 * channels, total.data());
  float* to = dweight.tensor.data<float>();
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t j = 0; j < 4; ++j) {
      float& entry = to[c * 4 + j];
      entry = total[static_cast<std::size_t>(j * channels + c)] + (dweight.accumulate ? entry : 0);
    }
}

// ---- Blocks of any size: panels of rows through small products.

template <class X, class Y>
void block_forward(const BlockLinearForward& a) {
  using F = Lane<X>;
  const hn::ScalableTag<F> d;
  const BlockSizes s(a, a.x.rows());
  const std::int64_t out_width = panel_width(s.out), in_width = panel_width(s.in),
                     row_blocks = (s.rows + kBlockRows - 1) / kBlockRows;
#pragma omp parallel for schedule(static) if (s.blocks * row_blocks > 1)
  for (std::int64_t task = 0; task < s.blocks * row_blocks; ++task) {
    const std::int64_t n = task / row_blocks, first = task % row_blocks * kBlockRows,
                       rows = std::min(kBlockRows, s.rows - first);
    static thread_local std::vector<F> memory;
    const auto [weight, x, y] = carve_panels(memory, {s.in * out_width, rows * in_width, rows * out_width});
    const F scale = static_cast<F>(a.scale);
    const F* block = a.weight.template data<F>() + n * s.out * s.in;
    if (a.transposed) {
      gather_rows(d, block, s.out, s.in, s.out, F{1}, weight, out_width);
    } else {
      gather_transposed(block, s.in, s.out, s.in, weight, out_width);
    }
    gather_rows(d, a.x.data<X>() + first * s.blocks * s.in + n * s.in, s.blocks * s.in, rows, s.in, scale, x,
                in_width);
    small_product<false>(d, rows, out_width, s.in, Strided<F>{x, in_width, 1}, weight, out_width, y,
                         out_width);
    for (std::int64_t r = 0; r < rows; ++r) {
      Y* to = a.y.data<Y>() + (first + r) * s.y_stride + n * s.y_block + a.part * s.out;
      for_vectors(d, s.out, [&](std::int64_t c, auto part) HWY_ATTR {
        store(d, hn::LoadU(d, y + r * out_width + c), to + c, part);
      });
    }
  }
}

template <class X, class Y>
void block_backward(const BlockLinearBackward& a) {
  using F = Lane<X>;
  const hn::ScalableTag<F> d;
  const BlockSizes s(a, a.x.rows());
  const std::int64_t out_width = panel_width(s.out), in_width = panel_width(s.in);
#pragma omp parallel for schedule(dynamic, 1) if (s.blocks > 1)
  for (std::int64_t n = 0; n < s.blocks; ++n) {
    static thread_local std::vector<F> memory;
    const auto [weight, x, dx, dy, dweight] =
        carve_panels(memory, {s.out * in_width, kBlockRows * in_width, kBlockRows * in_width,
                              kBlockRows * out_width, s.out * in_width});
    const F scale = static_cast<F>(a.scale);
    const F* block = a.weight.template data<F>() + n * s.out * s.in;
    if (a.transposed) {
      gather_transposed(block, s.out, s.in, s.out, weight, in_width);
    } else {
      gather_rows(d, block, s.in, s.out, s.in, F{1}, weight, in_width);
    }
    std::fill(dweight, dweight + s.out * in_width, F{0});
    for (std::int64_t first = 0; first < s.rows; first += kBlockRows) {
      const std::int64_t rows = std::min(kBlockRows, s.rows - first);
      gather_rows(d, a.dy.data<Y>() + first * s.y_stride + n * s.y_block + a.part * s.out, s.y_stride, rows,
                  s.out, scale, dy, out_width);
      if (a.dweight) {
        gather_rows(d, a.x.data<X>() + first * s.blocks * s.in + n * s.in, s.blocks * s.in, rows, s.in, F{1},
                    x, in_width);
        small_product<true>(d, s.out, in_width, rows, Strided<F>{dy, 1, out_width}, x, in_width, dweight,
                            in_width);
      }
      if (!a.dx) continue;
      small_product<false>(d, rows, in_width, s.out, Strided<F>{dy, out_width, 1}, weight, in_width, dx,
                           in_width);
      for (std::int64_t r = 0; r < rows; ++r) {
        X* to = a.dx.tensor.data<X>() + ((first + r) * s.blocks + n) * s.in;
        for_vectors(d, s.in, [&](std::int64_t c, auto part) HWY_ATTR {
          put(d, hn::LoadU(d, dx + r * in_width + c), to + c, a.dx.accumulate, part);
        });
      }
    }
    if (!a.dweight) continue;
    F* to = a.dweight.tensor.template data<F>() + n * s.out * s.in;
    for (std::int64_t o = 0; o < s.out; ++o)
      for (std::int64_t i = 0; i < s.in; ++i) {
        F& entry = to[a.transposed ? i * s.out + o : o * s.in + i];
        entry = dweight[o * in_width + i] + (a.dweight.accumulate ? entry : F{0});
      }
  }
}

template <class A>
bool has_four_blocks(const A& a) {
  const Tensor& weight = a.weight;
  return a.parts == 1 && !a.transposed && weight.shape()[1] == 4 && weight.shape()[2] == 4 &&
         weight.dtype() == DType::f32;
}

void run_block_forward(const BlockLinearForward& a) {
  dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
    if constexpr (!std::is_same_v<X, double>)
      if (has_four_blocks(a))
        return four_product(a.x.data<X>(), four_tables(a.weight, false), a.y.data<Y>(), a.x.rows(),
                            a.x.channels(), false);
    block_forward<X, Y>(a);
  });
}

void run_block_backward(const BlockLinearBackward& a, Memory& memory) {
  dispatch_floats(a.x.dtype(), a.dy.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
    if constexpr (!std::is_same_v<X, double>)
      if (has_four_blocks(a)) {
        if (a.dx)
          four_product(a.dy.data<Y>(), four_tables(a.weight, true), a.dx.tensor.data<X>(), a.x.rows(),
                       a.x.channels(), a.dx.accumulate);
        if (a.dweight)
          four_weight_gradient(a.dy.data<Y>(), a.x.data<X>(), a.dweight, a.x.rows(), a.x.channels(), memory);
        return;
      }
    block_backward<X, Y>(a);
  });
}

// ---- Gates: a few outputs for each row.

/// Row o of [A; B], from column `first` on.
template <class F>
const F* gate_row(const Tensor& a, const Tensor& b, std::int64_t o, std::int64_t first) {
  const std::int64_t heads = a.rows();
  return (o < heads ? a.data<F>() + o * a.channels() : b.data<F>() + (o - heads) * b.channels()) + first;
}

template <class X>
void gate_forward(const GateProductsForward& a) {
  using F = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), outputs = a.y.channels();
  parallel_rows(a.x.rows(), channels * outputs * 2, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const X* x = a.x.data<X>() + r * channels;
      F* y = a.y.data<F>() + r * outputs;
      for (std::int64_t o = 0; o < outputs; o += 2) {  // two at a time share the reads of x
        const F *w = gate_row<F>(a.a, a.b, o, a.first), *w_next = gate_row<F>(a.a, a.b, o + 1, a.first);
        auto total = hn::Zero(d), total_next = hn::Zero(d);
        for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
          const auto v = load(d, x + c, part);
          total = hn::MulAdd(v, load(d, w + c, part), total);
          total_next = hn::MulAdd(v, load(d, w_next + c, part), total_next);
        });
        y[o] = sum(d, total) + (a.accumulate ? y[o] : F{0});
        y[o + 1] = sum(d, total_next) + (a.accumulate ? y[o + 1] : F{0});
      }
    }
  });
}

/// One vector of channels of kOutputs gates: dx (+)= Σ_o dy·W, and Σ_r dy·x, which stays in registers while
/// the rows run, into `line`.
template <int kOutputs, class X, class P, class F = Lane<X>>
void gate_columns(const GateProductsBackward& a, std::int64_t begin, std::int64_t end,
                  std::int64_t first_output, std::int64_t c, F* line, P part) {
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), outputs = a.dy.channels();
  hn::Vec<decltype(d)> weights[kOutputs], totals[kOutputs];
  for (int o = 0; o < kOutputs; ++o) {
    weights[o] = load(d, gate_row<F>(a.a, a.b, first_output + o, a.first) + c, part);
    totals[o] = hn::Zero(d);
  }
  for (std::int64_t r = begin; r < end; ++r) {
    const F* dy = a.dy.data<F>() + r * outputs + first_output;
    const auto x = load(d, a.x.data<X>() + r * channels + c, part);
    auto dx = hn::Zero(d);
    for (int o = 0; o < kOutputs; ++o) {
      const auto g = hn::Set(d, dy[o]);
      dx = hn::MulAdd(g, weights[o], dx);
      totals[o] = hn::MulAdd(g, x, totals[o]);
    }
    if (a.dx) put(d, dx, a.dx.tensor.data<X>() + r * channels + c, a.dx.accumulate || first_output > 0, part);
  }
  for (int o = 0; o < kOutputs; ++o) store(d, totals[o], line + (first_output + o) * channels + c, part);
}

template <class X>
void gate_backward(const GateProductsBackward& a, Memory& memory) {
  using F = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), outputs = a.dy.channels(), heads = outputs / 2;
  PartialSums<F> sums(memory, a.x.rows(), outputs * channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, F* line) {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      std::int64_t o = 0;
      for (; o + 8 <= outputs; o += 8) gate_columns<8, X>(a, begin, end, o, c, line, part);
      for (; o < outputs; o += 2) gate_columns<2, X>(a, begin, end, o, c, line, part);
    });
  });
  const auto add_totals = [&](const Tensor& to, std::int64_t first_output) {
    for (std::int64_t head = 0; to.defined() && head < heads; ++head)
      sums.total((first_output + head) * channels, channels, to.data<F>() + head * to.channels() + a.first,
                 true);
  };
  add_totals(a.da, 0);
  add_totals(a.db, heads);
}

void run_gate_forward(const GateProductsForward& a) {
  dispatch_float(a.x.dtype(), [&]<class X>(Type<X>) { gate_forward<X>(a); });
}
void run_gate_backward(const GateProductsBackward& a, Memory& memory) {
  dispatch_float(a.x.dtype(), [&]<class X>(Type<X>) { gate_backward<X>(a, memory); });
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(run_block_forward);
HWY_EXPORT(run_block_backward);
HWY_EXPORT(run_gate_forward);
HWY_EXPORT(run_gate_backward);

void block_linear(const BlockLinearForward& a) { HWY_DYNAMIC_DISPATCH(run_block_forward)(a); }
void block_linear(const BlockLinearBackward& a, Memory& memory) {
  HWY_DYNAMIC_DISPATCH(run_block_backward)(a, memory);
}
void gate_products(const GateProductsForward& a) { HWY_DYNAMIC_DISPATCH(run_gate_forward)(a); }
void gate_products(const GateProductsBackward& a, Memory& memory) {
  HWY_DYNAMIC_DISPATCH(run_gate_backward)(a, memory);
}

// A handful of numbers a row: plain loops.

void cap_gates(const CapGatesForward& a) {
  dispatch_lane(a.g.dtype(), [&]<class F>(Type<F>) {
    const std::int64_t heads = a.a.elements(), all = a.g.channels() / 2;
    const F cap = static_cast<F>(a.cap);
    parallel_rows(a.g.rows(), 64 * heads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r)
        for (std::int64_t j = 0; j < 2 * heads; ++j) {
          const std::int64_t half = j / heads, head = j % heads;
          const F x =
              a.g.data<F>()[(2 * r + half) * all + a.first + head] + (half == 0 ? a.a : a.b).data<F>()[head];
          a.y.data<F>()[2 * r * heads + j] = cap > 0 ? cap * std::tanh(x / cap) : x;
        }
    });
  });
}

void cap_gates(const CapGatesBackward& a, Memory& memory) {
  dispatch_lane(a.dy.dtype(), [&]<class F>(Type<F>) {
    const std::int64_t heads = a.dy.channels() / 2;
    const std::int64_t all = a.dg ? a.dg.tensor.channels() / 2 : heads;
    const F cap = static_cast<F>(a.cap);
    PartialSums<F> sums(memory, a.dy.rows(), 2 * heads);
    sums.over_rows([&](std::int64_t begin, std::int64_t end, F* line) {
      for (std::int64_t r = begin; r < end; ++r) {
        F* dg = a.dg ? a.dg.tensor.data<F>() + 2 * r * all : nullptr;
        if (dg != nullptr && !a.dg.accumulate) std::fill(dg, dg + 2 * all, F{0});
        for (std::int64_t j = 0; j < 2 * heads; ++j) {
          const F y = a.y.data<F>()[2 * r * heads + j];
          const F dx = a.dy.data<F>()[2 * r * heads + j] * (cap > 0 ? 1 - (y / cap) * (y / cap) : F{1});
          line[j] += dx;
          if (dg != nullptr) dg[j / heads * all + a.first + j % heads] += dx;
        }
      }
    });
    sums.total(0, heads, a.da);
    sums.total(heads, heads, a.db);
  });
}

}  // namespace bireme::cpu
#endif
