// Cross-entropy over a vocabulary on the CPU, for loss_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_LOSS_TOKEN_LOSS_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_LOSS_TOKEN_LOSS_CPU_H_
#undef BIREME_CORE_OPS_LOSS_TOKEN_LOSS_CPU_H_
#else
#define BIREME_CORE_OPS_LOSS_TOKEN_LOSS_CPU_H_
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/loss/loss_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

template <class L>
void cap_row(L* x, std::int64_t columns, double cap) {
  const Lanes<L> d;
  const auto size = hn::Set(d, static_cast<L>(cap)), inverse = hn::Set(d, static_cast<L>(1 / cap));
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    store(d, hn::Mul(size, tanh(d, hn::Mul(load(d, x + c, part), inverse))), x + c, part);
  });
}

/// Three passes over a row that the first brings into cache.
template <class L>
void token_statistics_row(const TokenStatistics& a, std::int64_t r) {
  const Lanes<L> d;
  const std::int64_t columns = a.logits.channels();
  L* x = a.logits.data<L>() + r * columns;
  if (a.soft_cap != 0) cap_row(x, columns, a.soft_cap);
  const L lowest = std::numeric_limits<L>::lowest();
  auto largest_lanes = hn::Set(d, lowest);
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    largest_lanes = hn::Max(largest_lanes, keep(d, load(d, x + c, part), part, lowest));
  });
  const L largest = maximum(d, largest_lanes);
  const auto shift = hn::Set(d, largest);
  auto total = hn::Zero(d);
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    total = hn::Add(total, keep(d, exp(d, hn::Sub(load(d, x + c, part), shift)), part));
  });
  a.maxima.data<double>()[r] = largest;
  a.sums.data<double>()[r] = sum(d, total);
  const std::int64_t target = a.targets.data<std::int32_t>()[r] - a.first;
  const bool is_here = a.targets.data<std::int32_t>()[r] >= 0 && target >= 0 && target < columns;
  a.target_logits.data<double>()[r] = is_here ? x[target] : 0;
  if (a.argmax)
    a.argmax.data<double>()[r] = static_cast<double>(a.first + (std::find(x, x + columns, largest) - x));
}

template <class L>
void token_statistics(const TokenStatistics& a) {
  parallel_rows(a.logits.rows(), 2 * a.logits.channels() * std::int64_t{sizeof(L)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) token_statistics_row<L>(a, r);
                });
}

/// G: type in which the gradient is stored, over the logits or beside them.
template <class L, class G>
void token_gradient_row(const TokenGradient& a, std::int64_t r) {
  const Lanes<L> d;
  const std::int64_t columns = a.logits.channels();
  const L* x = a.logits.data<L>() + r * columns;
  G* dx = a.dlogits.data<G>() + r * columns;
  const std::int32_t target = a.targets.data<std::int32_t>()[r];
  const double weight = a.weights ? a.weights.data<double>()[r] : 1;
  if (target < 0 || weight == 0) {
    std::fill(dx, dx + columns, G{});
    return;
  }
  const double log_sum = a.log_sums.data<double>()[r], scale = weight / a.count;
  const auto slope = [&](L logit) {  // of the cap at this logit
    const double ratio = a.soft_cap != 0 ? logit / a.soft_cap : 0;
    return 1 - ratio * ratio;
  };
  // The single entries first: dx may be x.
  const std::int64_t at = target - a.first;
  const std::int64_t top =
      a.l2_wrap != 0 ? static_cast<std::int64_t>(a.argmax.data<double>()[r]) - a.first : -1;
  const bool has_target = at >= 0 && at < columns, has_top = top >= 0 && top < columns;
  const double at_slope = has_target ? slope(x[at]) : 0, top_slope = has_top ? slope(x[top]) : 0;
  const double softmax_scale = scale * (1 + 2 * a.z_loss * log_sum);
  const auto probability = [&](std::int64_t c) { return std::exp(x[c] - log_sum) * softmax_scale; };
  double at_value = has_target ? (probability(at) - scale) * at_slope : 0;
  double top_value =
      has_top ? (probability(top) + scale * a.l2_wrap * a.maxima.data<double>()[r]) * top_slope : 0;
  if (has_target && at == top) at_value = top_value = top_value - scale * at_slope;

  const auto shift = hn::Set(d, static_cast<L>(log_sum)), factor = hn::Set(d, static_cast<L>(softmax_scale));
  const auto inverse_cap = hn::Set(d, a.soft_cap != 0 ? static_cast<L>(1 / a.soft_cap) : L{0});
  const auto one = hn::Set(d, L{1});
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto logit = load(d, x + c, part), ratio = hn::Mul(logit, inverse_cap);
    const auto p = hn::Mul(exp(d, hn::Sub(logit, shift)), factor);
    store(d, hn::Mul(p, hn::NegMulAdd(ratio, ratio, one)), dx + c, part);
  });
  const auto write = [dx](std::int64_t c, double value) {
    if constexpr (std::is_same_v<G, bf16>) {
      dx[c] = to_bf16(static_cast<float>(value));
    } else {
      dx[c] = static_cast<G>(value);
    }
  };
  if (has_target) write(at, at_value);
  if (has_top) write(top, top_value);
}

template <class L, class G>
void token_gradient(const TokenGradient& a) {
  parallel_rows(a.logits.rows(), a.logits.channels() * std::int64_t{sizeof(L) + sizeof(G)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) token_gradient_row<L, G>(a, r);
                });
}

inline void token_rebase(const TokenRebase& a) {
  for (std::int64_t r = 0; r < a.own.elements(); ++r) {
    const double own = a.own.data<double>()[r], largest = a.maxima.data<double>()[r];
    a.sums.data<double>()[r] *= std::exp(own - largest);
    if (!a.argmax) continue;
    double& position = a.argmax.data<double>()[r];
    position = own == largest ? -position : std::numeric_limits<double>::lowest();
  }
}

/// P: type of the log-probabilities.
template <class P>
void token_finish(const TokenFinish& a) {
  for (std::int64_t r = 0; r < a.maxima.elements(); ++r) {
    const double largest = a.maxima.data<double>()[r], logit = a.target_logits.data<double>()[r];
    const double log_sum = largest + std::log(a.sums.data<double>()[r]), negative = log_sum - logit;
    const bool counts = a.targets.data<std::int32_t>()[r] >= 0;
    a.log_sums.data<double>()[r] = log_sum;
    a.log_probability.data<P>()[r] = counts && negative > 0 ? static_cast<P>(-negative) : P{0};
    if (a.is_top) a.is_top.data<std::uint8_t>()[r] = counts && logit == largest ? 1 : 0;
    if (a.losses) a.losses.data<double>()[r] = counts ? negative + a.z_loss * log_sum * log_sum : 0;
  }
}

template <class L>
void token_totals(const TokenTotals& a) {
  double loss = 0, top = 0;
  for (const double row : a.losses.values<double>()) loss += row;
  for (const std::uint8_t row : a.is_top.values<std::uint8_t>()) top += row;
  a.loss.data<L>()[0] = static_cast<L>(loss / a.count);
  a.top.data<double>()[0] = top;
}

template <class L>
void soft_cap(const SoftCap& a) {
  const std::int64_t columns = a.logits.channels();
  parallel_rows(a.logits.rows(), columns * std::int64_t{sizeof(L)},
                [&](std::int64_t begin, std::int64_t end) {
                  cap_row(a.logits.data<L>() + begin * columns, (end - begin) * columns, a.cap);
                });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
