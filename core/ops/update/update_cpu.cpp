#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/update/update_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <cmath>
#include <vector>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/update/update_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

// Slices differ by orders of magnitude in size; pieces of this size share them out evenly, at a cost of well
// under 1 % for handing one out.
constexpr std::int64_t kPiece = 16384;

struct Piece {
  std::int64_t begin, end;
  std::size_t slice;
};

template <class Slices, class Bounds>
std::vector<Piece> cut(const Slices& slices, const Bounds& bounds) {
  std::vector<Piece> pieces;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const auto [begin, end] = bounds(slices[s]);
    for (std::int64_t at = begin; at < end; at += kPiece)
      pieces.push_back({at, std::min(at + kPiece, end), s});
  }
  return pieces;
}

/// Calls f(piece, its index), spread over the threads.
template <class F>
void over_pieces(const std::vector<Piece>& pieces, F f) {
  parallel_chunks({.items = std::ssize(pieces)}, [&](std::int64_t i, std::int64_t, std::int64_t) {
    f(pieces[static_cast<std::size_t>(i)], static_cast<std::size_t>(i));
  });
}

/// Null where the tensor is not there.
template <class T>
T* start_of(const Tensor& tensor, std::int64_t offset) {
  return tensor.defined() ? tensor.data<T>() + offset : nullptr;
}

void adamw_piece(const AdamW& a, const Piece& piece) {
  const Lanes<float> d;
  const AdamWSlice& s = a.slices[piece.slice];
  float* theta = a.values.data<float>() + piece.begin;
  float* m = a.first_moment.data<float>() + piece.begin;
  float* v = a.second_moment.data<float>() + piece.begin;
  const float* g = a.gradients.data<float>() + piece.begin;
  bf16* copy = start_of<bf16>(a.bf16_copy, piece.begin);
  const auto b1 = hn::Set(d, a.beta1), c1 = hn::Set(d, 1 - a.beta1), b2 = hn::Set(d, a.beta2),
             c2 = hn::Set(d, 1 - a.beta2);
  const auto decay = hn::Set(d, 1 - s.learning_rate * s.weight_decay),
             rate = hn::Set(d, s.learning_rate / s.bias1);
  const auto root = hn::Set(d, 1 / std::sqrt(s.bias2)), epsilon = hn::Set(d, a.epsilon),
             scale = hn::Set(d, s.gradient_scale);
  for_vectors(d, piece.end - piece.begin, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto gradient = hn::Mul(scale, load(d, g + i, part));
    const auto first = hn::MulAdd(b1, load(d, m + i, part), hn::Mul(c1, gradient));
    const auto second = hn::MulAdd(b2, load(d, v + i, part), hn::Mul(c2, hn::Mul(gradient, gradient)));
    const auto step = hn::Div(hn::Mul(rate, first), hn::MulAdd(hn::Sqrt(second), root, epsilon));
    const auto moved = hn::Sub(hn::Mul(decay, load(d, theta + i, part)), step);
    store(d, first, m + i, part);
    store(d, second, v + i, part);
    store(d, moved, theta + i, part);
    if (copy != nullptr) store(d, moved, copy + i, part);
  });
}

void average_piece(const Average& a, const Piece& piece) {
  const Lanes<float> d;
  const float* values = a.values.data<float>() + piece.begin;
  float* average = a.average.data<float>() + piece.begin;
  bf16* copy = start_of<bf16>(a.bf16_copy, piece.begin);
  const auto kept = hn::Set(d, a.momentum), taken = hn::Set(d, 1 - a.momentum);
  for_vectors(d, piece.end - piece.begin, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto moved =
        hn::MulAdd(kept, load(d, average + i, part), hn::Mul(taken, load(d, values + i, part)));
    store(d, moved, average + i, part);
    if (copy != nullptr) store(d, moved, copy + i, part);
  });
}

double squared_norm(const float* x, std::int64_t count) {
  const Lanes<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  auto total = hn::Zero(d);
  for_vectors(d, count, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto wide = hn::PromoteTo(d, load(narrow, x + i, part));
    total = hn::MulAdd(wide, wide, total);
  });
  return sum(d, total);
}

class CpuUpdate final : public UpdateKernels {
 public:
  void adamw(const AdamW& a) const override {
    const auto pieces = cut(a.slices, [](const AdamWSlice& s) { return std::pair{s.begin, s.end}; });
    over_pieces(pieces, [&](const Piece& piece, std::size_t) { adamw_piece(a, piece); });
  }

  void average(const Average& a) const override {
    parallel_chunks({.items = a.values.elements(), .size = kPiece},
                    [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                      average_piece(a, {.begin = begin, .end = end, .slice = 0});
                    });
  }

  void squared_norms(const Tensor& values, std::span<const std::pair<std::int64_t, std::int64_t>> slices,
                     std::span<double> result) const override {
    const auto pieces = cut(slices, [](const auto& slice) { return slice; });
    std::vector<double> partial(pieces.size());
    over_pieces(pieces, [&](const Piece& piece, std::size_t i) {
      partial[i] = squared_norm(values.data<float>() + piece.begin, piece.end - piece.begin);
    });
    std::fill(result.begin(), result.end(), 0.0);
    for (std::size_t i = 0; i < pieces.size(); ++i) result[pieces[i].slice] += partial[i];
  }
};

std::unique_ptr<UpdateKernels> make_update(Memory& /*memory*/) { return std::make_unique<CpuUpdate>(); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_update);
std::unique_ptr<UpdateKernels> make_update(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_update)(memory);
}

}  // namespace bireme::cpu
#endif
