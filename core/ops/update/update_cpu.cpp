#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cpu/cpu_kernels.h"
#include "core/ops/update/update_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/update/update_cpu.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#ifndef BIREME_UPDATE_RANGE
#define BIREME_UPDATE_RANGE
namespace bireme::cpu {

struct AdamWRange {
  float *theta, *m, *v;
  const float* g;
  bf16* copy;  // or null
  std::int64_t count;
};

}  // namespace bireme::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void adamw_range(const AdamWRange& r, const AdamWSlice& s, float beta1, float beta2, float epsilon) {
  const hn::ScalableTag<float> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto b1 = hn::Set(d, beta1), c1 = hn::Set(d, 1 - beta1), b2 = hn::Set(d, beta2),
             c2 = hn::Set(d, 1 - beta2);
  const auto keep = hn::Set(d, 1 - s.learning_rate * s.weight_decay),
             rate = hn::Set(d, s.learning_rate / s.bias1);
  const auto root = hn::Set(d, 1 / std::sqrt(s.bias2)), eps = hn::Set(d, epsilon),
             scale = hn::Set(d, s.gradient_scale);
  const auto one = [&](std::int64_t i, auto load, auto store) HWY_ATTR {
    const auto g = hn::Mul(scale, load(r.g + i));
    const auto m = hn::MulAdd(b1, load(r.m + i), hn::Mul(c1, g));
    const auto v = hn::MulAdd(b2, load(r.v + i), hn::Mul(c2, hn::Mul(g, g)));
    const auto step = hn::Div(hn::Mul(rate, m), hn::MulAdd(hn::Sqrt(v), root, eps));
    const auto theta = hn::Sub(hn::Mul(keep, load(r.theta + i)), step);
    store(m, r.m + i);
    store(v, r.v + i);
    store(theta, r.theta + i);
  };
  std::int64_t i = 0;
  for (; i + lanes <= r.count; i += lanes)
    one(
        i, [&](const float* p) HWY_ATTR { return hn::LoadU(d, p); },
        [&](auto x, float* p) HWY_ATTR { hn::StoreU(x, d, p); });
  if (i < r.count) {
    for (; i < r.count; ++i) {
      const float g = s.gradient_scale * r.g[i];
      r.m[i] = beta1 * r.m[i] + (1 - beta1) * g;
      r.v[i] = beta2 * r.v[i] + (1 - beta2) * g * g;
      r.theta[i] = (1 - s.learning_rate * s.weight_decay) * r.theta[i] -
                   s.learning_rate / s.bias1 * r.m[i] / (std::sqrt(r.v[i]) / std::sqrt(s.bias2) + epsilon);
    }
  }
  if (r.copy != nullptr)
    for (i = 0; i < r.count; ++i) r.copy[i] = to_bf16(r.theta[i]);
}

void average_range(const float* values, float* average, bf16* copy, std::int64_t count, float momentum) {
  const hn::ScalableTag<float> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto m = hn::Set(d, momentum), c = hn::Set(d, 1 - momentum);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(hn::MulAdd(m, hn::LoadU(d, average + i), hn::Mul(c, hn::LoadU(d, values + i))), d,
               average + i);
  for (; i < count; ++i) average[i] = momentum * average[i] + (1 - momentum) * values[i];
  if (copy != nullptr)
    for (i = 0; i < count; ++i) copy[i] = to_bf16(average[i]);
}

double squared_norm_range(const float* x, std::int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto wide = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    sum = hn::MulAdd(wide, wide, sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < count; ++i) total += double{x[i]} * double{x[i]};
  return total;
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(adamw_range);
HWY_EXPORT(average_range);
HWY_EXPORT(squared_norm_range);

namespace {

// A chunk's streams fit into the second-level cache, so that the rounding to bf16 finds its input there.
constexpr std::int64_t kChunk = 16384;

struct Piece {
  std::int64_t begin, end;
  std::size_t slice;
};

template <class Slices, class Bounds>
std::vector<Piece> cut(const Slices& slices, const Bounds& bounds) {
  std::vector<Piece> pieces;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const auto [begin, end] = bounds(slices[s]);
    for (std::int64_t at = begin; at < end; at += kChunk)
      pieces.push_back({at, std::min(at + kChunk, end), s});
  }
  return pieces;
}

class CpuUpdate final : public UpdateKernels {
 public:
  void adamw(const AdamW& a) const override {
    const auto pieces = cut(a.slices, [](const AdamWSlice& s) { return std::pair{s.begin, s.end}; });
    const auto count = static_cast<std::int64_t>(pieces.size());
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      const Piece& p = pieces[static_cast<std::size_t>(i)];
      const AdamWRange range{.theta = a.values.data<float>() + p.begin,
                             .m = a.first_moment.data<float>() + p.begin,
                             .v = a.second_moment.data<float>() + p.begin,
                             .g = a.gradients.data<float>() + p.begin,
                             .copy = a.bf16_copy.defined() ? a.bf16_copy.data<bf16>() + p.begin : nullptr,
                             .count = p.end - p.begin};
      HWY_DYNAMIC_DISPATCH(adamw_range)(range, a.slices[p.slice], a.beta1, a.beta2, a.epsilon);
    }
  }

  void average(const Average& a) const override {
    const std::int64_t elements = a.values.elements();
#pragma omp parallel for schedule(static)
    for (std::int64_t begin = 0; begin < elements; begin += kChunk) {
      HWY_DYNAMIC_DISPATCH(average_range)
      (a.values.data<float>() + begin, a.average.data<float>() + begin,
       a.bf16_copy.defined() ? a.bf16_copy.data<bf16>() + begin : nullptr, std::min(kChunk, elements - begin),
       a.momentum);
    }
  }

  void squared_norms(const Tensor& values, std::span<const std::pair<std::int64_t, std::int64_t>> slices,
                     std::span<double> result) const override {
    const auto pieces = cut(slices, [](const auto& slice) { return slice; });
    std::vector<double> partial(pieces.size());
    const auto count = static_cast<std::int64_t>(pieces.size());
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      const Piece& p = pieces[static_cast<std::size_t>(i)];
      partial[static_cast<std::size_t>(i)] =
          HWY_DYNAMIC_DISPATCH(squared_norm_range)(values.data<float>() + p.begin, p.end - p.begin);
    }
    std::fill(result.begin(), result.end(), 0.0);
    for (std::size_t i = 0; i < pieces.size(); ++i) result[pieces[i].slice] += partial[i];
  }
};

}  // namespace

std::unique_ptr<UpdateKernels> make_update(Memory& /*memory*/) { return std::make_unique<CpuUpdate>(); }

}  // namespace bireme::cpu
#endif
