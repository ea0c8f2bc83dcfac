#pragma once

#include "core/ops/loss/dino_loss_cuda.cuh"

namespace bireme::cuda {

struct TokenRebaseOp {
  const double *own, *maxima;
  double *sums, *argmax;

  template <int N>
  __device__ void run(std::int64_t r) const {
    static_assert(N == 1);
    sums[r] *= exp(own[r] - maxima[r]);
    if (argmax != nullptr)
      argmax[r] = own[r] == maxima[r] ? -argmax[r] : std::numeric_limits<double>::lowest();
  }
};

inline void token_rebase(DeviceMemory& memory, const TokenRebase& a) {
  elementwise<1>(memory.stream(), a.own.elements(), false,
                 TokenRebaseOp{a.own.data<double>(), a.maxima.data<double>(), a.sums.data<double>(),
                               data_or_null<double>(a.argmax)});
}

/// P: type of the log-probabilities.
template <class P>
struct TokenFinishOp {
  const std::int32_t* targets;
  const double *maxima, *sums, *target_logits;
  double z_loss;
  double* log_sums;
  P* log_probability;
  std::uint8_t* is_top;  // or null
  double* losses;        // or null

  template <int N>
  __device__ void run(std::int64_t r) const {
    static_assert(N == 1);
    const double log_sum = maxima[r] + log(sums[r]), negative = log_sum - target_logits[r];
    const bool counts = targets[r] >= 0;
    log_sums[r] = log_sum;
    log_probability[r] = counts && negative > 0 ? static_cast<P>(-negative) : P{0};
    if (is_top != nullptr) is_top[r] = counts && target_logits[r] == maxima[r] ? 1 : 0;
    if (losses != nullptr) losses[r] = counts ? negative + z_loss * log_sum * log_sum : 0;
  }
};

template <class P>
void token_finish(DeviceMemory& memory, const TokenFinish& a) {
  const Tensor targets = memory.here(a.targets);
  elementwise<1>(memory.stream(), a.maxima.elements(), false,
                 TokenFinishOp<P>{targets.data<std::int32_t>(), a.maxima.data<double>(),
                                  a.sums.data<double>(), a.target_logits.data<double>(), a.z_loss,
                                  a.log_sums.data<double>(), a.log_probability.data<P>(),
                                  data_or_null<std::uint8_t>(a.is_top), data_or_null<double>(a.losses)});
}

/// One block for all rows.
template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp)
    token_totals_kernel(const double* losses, const std::uint8_t* is_top, std::int64_t rows, double count,
                        L* loss, double* top) {
  __shared__ double room[2][Warps];
  double total = 0, tops = 0;
  for (std::int64_t r = threadIdx.x; r < rows; r += Warps * kWarp) {
    total += losses[r];
    tops += is_top[r];
  }
  total = block_sum<Warps>(total, room[0]);
  tops = block_sum<Warps>(tops, room[1]);
  if (threadIdx.x != 0) return;
  *loss = static_cast<L>(total / count);
  *top = tops;
}

template <class L>
void token_totals(DeviceMemory& memory, const TokenTotals& a) {
  launch(memory.stream(), {{1}, {kMostRowWarps * kWarp}}, token_totals_kernel<kMostRowWarps, L>,
         a.losses.data<double>(), a.is_top.data<std::uint8_t>(), a.losses.elements(), a.count,
         a.loss.data<L>(), a.top.data<double>());
}

}  // namespace bireme::cuda
