// Attention without a mask on the CPU, for attention_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_DENSE_ATTENTION_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_DENSE_ATTENTION_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_DENSE_ATTENTION_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_DENSE_ATTENTION_CPU_H_
#endif

#include "core/ops/attention/attention_kernels.h"
#include "core/ops/attention/head_attention_cpu.h"
#include "core/ops/attention/paired_attention_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

template <class T>
void forward(const HeadTask<T>& task) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, bf16>)
    if (runs_over_pairs(task)) return paired_attention_forward(task);
#endif
  attention_forward(task);
}

template <class T>
void backward(const HeadTask<T>& task) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, bf16>)
    if (runs_over_pairs(task)) return paired_attention_backward(task);
#endif
  attention_backward(task);
}

/// Calls body(first row, length, head, sequence) for every head of every sequence, in parallel. Tasks are
/// independent, so any split over threads gives the same bits; long sequences lie in runs, and a dynamic
/// schedule levels them out.
template <class Body>
void for_each_head(const Segments& segments, int heads, const Body& body) {
  std::int64_t first = 0;
  for (const Segment& segment : segments) {
    const std::int64_t tasks = segment.count * heads;
    // Waking the threads costs about as much as 64 tasks of 16 tokens.
    const bool is_large = tasks * segment.length * segment.length > 1 << 14;
#pragma omp parallel for schedule(dynamic, 4) if (is_large)
    for (std::int64_t task = 0; task < tasks; ++task) {
      const std::int64_t sequence = task / heads, head = task % heads;
      body(first + sequence * segment.length, segment.length, head, sequence);
    }
    first += segment.count * segment.length;
  }
}

template <class T>
HeadTask<T> head_task(const Tensor& qkv, int heads, std::int64_t row, std::int64_t length,
                      std::int64_t head) {
  const std::int64_t channels = qkv.channels() / 3, dimension = channels / heads;
  HeadTask<T> task;
  task.qkv = qkv.data<T>() + row * 3 * channels + head * dimension;
  task.length = length;
  task.dimension = dimension;
  task.channels = channels;
  task.heads = heads;
  return task;
}

template <class T>
void run_forward(const AttentionForward& a) {
  for_each_head(a.segments, a.heads,
                [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t) {
                  HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                  task.y = a.y.data<T>() + row * task.channels + head * task.dimension;
                  if (a.log_sum.defined()) task.log_sum = a.log_sum.data<Lane<T>>() + row * a.heads + head;
                  forward(task);
                });
}

template <class T>
void run_backward(const AttentionBackward& a) {
  for_each_head(a.segments, a.heads,
                [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t) {
                  HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                  const std::int64_t at = row * task.channels + head * task.dimension;
                  task.y = a.y.data<T>() + at;
                  task.dy = a.dy.data<T>() + at;
                  task.log_sum = a.log_sum.data<Lane<T>>() + row * a.heads + head;
                  task.dqkv = a.dqkv.tensor.data<T>() + row * 3 * task.channels + head * task.dimension;
                  task.accumulate = a.dqkv.accumulate;
                  backward(task);
                });
}

template <class T>
void run_weights(const AttentionWeights& a) {
  for_each_head({a.segment}, a.heads,
                [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t sequence) {
                  HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                  task.weights = a.weights.data<float>() + (sequence * a.heads + head) * length * length;
                  forward(task);
                });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
