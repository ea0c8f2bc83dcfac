#pragma once

#include "core/ops/loss/dino_loss_cuda.cuh"

namespace bireme::cuda {

template <class L>
struct SoftCapOp {
  L* x;
  L cap;
  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    x[i] = cap * tanh(x[i] * (1 / cap));
  }
};

/// The largest so far, the first place where it stands, and Σ exp(x - largest), from one reading: rows of a
/// large vocabulary, as many as blocks run, are more than L2 holds.
template <class L>
struct RunningExponentials {
  L most = std::numeric_limits<L>::lowest(), total = 0;
  std::int64_t place = 0;

  __device__ void add(L x, std::int64_t c) {
    const bool is_larger = x > most;
    const L smaller = exp(is_larger ? most - x : x - most);
    total = is_larger ? total * smaller + 1 : total + smaller;
    if (!is_larger) return;
    most = x;
    place = c;
  }
};

/// log Σ exp of each row, and the row's part of the loss.
template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp)
    cross_entropy_row_kernel(const L* logits, const std::int32_t* labels, L* log_sum_exp, double* parts,
                             std::int64_t classes) {
  __shared__ L room[Warps];
  const L* x = logits + std::int64_t{blockIdx.x} * classes;
  RunningExponentials<L> own;
  for (std::int64_t c = threadIdx.x; c < classes; c += Warps * kWarp) own.add(x[c], c);
  const L most = block_max<Warps>(own.most, room),
          total = block_sum<Warps>(own.total * exp(own.most - most), room);
  if (threadIdx.x != 0) return;
  const L log_sum = most + log(total);
  log_sum_exp[blockIdx.x] = log_sum;
  parts[blockIdx.x] = static_cast<double>(log_sum) - x[labels[blockIdx.x]];
}

/// to = Σ parts / count, by one block.
template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp)
    total_kernel(const double* parts, std::int64_t rows, double count, L* to) {
  __shared__ double room[Warps];
  double total = 0;
  for (std::int64_t r = threadIdx.x; r < rows; r += Warps * kWarp) total += parts[r];
  total = block_sum<Warps>(total, room);
  if (threadIdx.x == 0) *to = static_cast<L>(total / count);
}

template <class L>
void cross_entropy(DeviceMemory& memory, const CrossEntropyForward& a) {
  const std::int64_t rows = a.logits.rows();
  const Tensor labels = memory.here(a.labels), parts(memory, {rows}, DType::f64);
  block_a_row(rows, a.logits.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, cross_entropy_row_kernel<decltype(warps)::value, L>, a.logits.data<L>(),
           labels.data<std::int32_t>(), a.log_sum_exp.data<L>(), parts.data<double>(), a.logits.channels());
  });
  launch(memory.stream(), {{1}, {kMostRowWarps * kWarp}}, total_kernel<kMostRowWarps, L>,
         parts.data<double>(), rows, a.count, a.loss.data<L>());
}

template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp)
    cross_entropy_backward_kernel(const L* dloss, L* logits, const std::int32_t* labels, const L* log_sum_exp,
                                  std::int64_t classes, double count) {
  L* x = logits + std::int64_t{blockIdx.x} * classes;
  const L factor = static_cast<L>(*dloss / count), log_sum = log_sum_exp[blockIdx.x];
  const std::int64_t label = labels[blockIdx.x];
  for (std::int64_t c = threadIdx.x; c < classes; c += Warps * kWarp)
    x[c] = exp(x[c] - log_sum) * factor - (c == label ? factor : L{0});
}

template <class L>
void cross_entropy(DeviceMemory& memory, const CrossEntropyBackward& a) {
  const Tensor labels = memory.here(a.labels);
  block_a_row(a.logits.rows(), a.logits.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, cross_entropy_backward_kernel<decltype(warps)::value, L>, a.dloss.data<L>(),
           a.logits.data<L>(), labels.data<std::int32_t>(), a.log_sum_exp.data<L>(), a.logits.channels(),
           a.count);
  });
}

template <class L>
struct TokenRows {
  L* logits;
  const std::int32_t* targets;
  std::int64_t first, columns;
  L cap;
  double *maxima, *argmax, *sums, *target_logits;
};

/// The first of the largest is found by the smallest of the places where it stands.
template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp) token_statistics_kernel(TokenRows<L> a) {
  __shared__ L room[Warps];
  __shared__ double places[Warps];
  L* x = a.logits + std::int64_t{blockIdx.x} * a.columns;
  RunningExponentials<L> own;
  for (std::int64_t c = threadIdx.x; c < a.columns; c += Warps * kWarp) {
    if (a.cap != 0) x[c] = a.cap * tanh(x[c] * (1 / a.cap));
    own.add(x[c], c);
  }
  const L most = block_max<Warps>(own.most, room),
          total = block_sum<Warps>(own.total * exp(own.most - most), room);
  const double place = -static_cast<double>(own.most == most ? own.place : a.columns);
  const double nearest = block_max<Warps>(place, places);
  // Another thread may have capped x[target]: there is a barrier in the sums of several warps.
  if constexpr (Warps == 1) __syncwarp();
  if (threadIdx.x != 0) return;
  const std::int64_t token = a.targets[blockIdx.x], target = token - a.first;
  a.maxima[blockIdx.x] = most;
  a.sums[blockIdx.x] = total;
  a.target_logits[blockIdx.x] = token >= 0 && target >= 0 && target < a.columns ? x[target] : 0;
  if (a.argmax != nullptr) a.argmax[blockIdx.x] = static_cast<double>(a.first) - nearest;
}

template <class L>
void token_statistics(DeviceMemory& memory, const TokenStatistics& a) {
  const Tensor targets = memory.here(a.targets);
  block_a_row(a.logits.rows(), a.logits.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, token_statistics_kernel<decltype(warps)::value, L>,
           TokenRows<L>{a.logits.data<L>(), targets.data<std::int32_t>(), a.first, a.logits.channels(),
                        static_cast<L>(a.soft_cap), a.maxima.data<double>(), data_or_null<double>(a.argmax),
                        a.sums.data<double>(), a.target_logits.data<double>()});
  });
}

template <class L, class G>
struct TokenRowsGradient {
  const L* logits;
  const std::int32_t* targets;
  const double *maxima, *argmax, *log_sums;
  const double* weights;  // or null
  G* dlogits;
  std::int64_t first, columns;
  double cap, count, z_loss, l2_wrap;
};

template <int Warps, class L, class G>
__global__ void __launch_bounds__(Warps* kWarp) token_gradient_kernel(TokenRowsGradient<L, G> a) {
  const L* x = a.logits + std::int64_t{blockIdx.x} * a.columns;
  G* dx = a.dlogits + std::int64_t{blockIdx.x} * a.columns;
  const std::int64_t token = a.targets[blockIdx.x], target = token - a.first;
  const double log_sum = a.log_sums[blockIdx.x];
  const double scale = (a.weights != nullptr ? a.weights[blockIdx.x] : 1) / a.count;
  const std::int64_t top = a.l2_wrap != 0 ? static_cast<std::int64_t>(a.argmax[blockIdx.x]) - a.first : -1;
  const L factor = static_cast<L>(scale * (1 + 2 * a.z_loss * log_sum)), shift = static_cast<L>(log_sum);
  const L inverse_cap = a.cap != 0 ? static_cast<L>(1 / a.cap) : L{0};
  for (std::int64_t c = threadIdx.x; c < a.columns; c += Warps * kWarp) {
    if (token < 0) {
      store(dx + c, 0);
      continue;
    }
    const L ratio = x[c] * inverse_cap, slope = 1 - ratio * ratio;
    if (c != target && c != top) {
      store(dx + c, exp(x[c] - shift) * factor * slope);
      continue;
    }
    double value = exp(static_cast<double>(x[c]) - log_sum) * scale * (1 + 2 * a.z_loss * log_sum);
    if (c == target) value -= scale;
    if (c == top) value += scale * a.l2_wrap * a.maxima[blockIdx.x];
    store(dx + c, static_cast<Lane<G>>(value * slope));
  }
}

template <class L, class G>
void token_gradient(DeviceMemory& memory, const TokenGradient& a) {
  const Tensor targets = memory.here(a.targets), weights = memory.here(a.weights);
  block_a_row(a.logits.rows(), a.logits.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, token_gradient_kernel<decltype(warps)::value, L, G>,
           TokenRowsGradient<L, G>{a.logits.data<L>(), targets.data<std::int32_t>(), a.maxima.data<double>(),
                                   data_or_null<double>(a.argmax), a.log_sums.data<double>(),
                                   data_or_null<double>(weights), a.dlogits.data<G>(), a.first,
                                   a.logits.channels(), a.soft_cap, a.count, a.z_loss, a.l2_wrap});
  });
}

}  // namespace bireme::cuda
