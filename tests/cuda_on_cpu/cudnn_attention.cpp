// A stand-in for core/cuda/cudnn_attention.cpp: plain loops in the order of the stream. Shapes that cuDNN
// does not have are refused here too.
#include "core/cuda/cudnn_attention.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/cuda/devices.h"
#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/host_blocks.h"
#include "tests/cuda_on_cpu/launches.h"
#include "tests/cuda_on_cpu/stream.h"

namespace bireme::cuda {

namespace {

/// One sequence's head: rows of q, k and v, `columns` apart.
struct Head {
  std::int64_t q, k, v, y, log_sum;  // where its first row begins, in entries
};
Head head_of(const PackedAttention& s, std::int64_t sequence, int head) {
  const std::int64_t group = head / (s.queries / s.keys), row = sequence * s.length,
                     columns = (s.queries + 2 * s.keys) * s.dimension;
  return {.q = row * columns + head * s.dimension,
          .k = row * columns + (s.queries + group) * s.dimension,
          .v = row * columns + (s.queries + s.keys + group) * s.dimension,
          .y = (row * s.queries + head) * s.dimension,
          .log_sum = (sequence * s.queries + head) * s.length};
}
std::int64_t columns_of(const PackedAttention& s) { return (s.queries + 2 * s.keys) * s.dimension; }

float dot(const bf16* a, const bf16* b, std::int64_t count) {
  float sum = 0;
  for (std::int64_t c = 0; c < count; ++c) sum += to_float(a[c]) * to_float(b[c]);
  return sum;
}

/// Calls body(head, i, scores of row i with the columns that it sees).
template <class Body>
void for_rows(const PackedAttention& s, const bf16* qkv, const Body& body) {
  const float scale = 1 / std::sqrt(static_cast<float>(s.dimension));
  std::vector<float> scores;
  for (std::int64_t b = 0; b < s.sequences; ++b)
    for (int h = 0; h < s.queries; ++h) {
      const Head head = head_of(s, b, h);
      for (std::int64_t i = 0; i < s.length; ++i) {
        scores.resize(static_cast<std::size_t>(s.is_causal ? i + 1 : s.length));
        for (std::size_t j = 0; j < scores.size(); ++j)
          scores[j] = scale * dot(qkv + head.q + i * columns_of(s),
                                  qkv + head.k + static_cast<std::int64_t>(j) * columns_of(s), s.dimension);
        body(head, i, scores);
      }
    }
}

void run_forward(const PackedAttention& s, const bf16* qkv, bf16* y, float* log_sum) {
  for_rows(s, qkv, [&](const Head& head, std::int64_t i, const std::vector<float>& scores) {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    for (const float score : scores) largest = std::max(largest, score);
    for (const float score : scores) sum += std::exp(score - largest);
    if (log_sum != nullptr) log_sum[head.log_sum + i] = largest + std::log(sum);
    for (std::int64_t c = 0; c < s.dimension; ++c) {
      float mean = 0;
      for (std::size_t j = 0; j < scores.size(); ++j)
        mean += std::exp(scores[j] - largest) / sum *
                to_float(qkv[head.v + static_cast<std::int64_t>(j) * columns_of(s) + c]);
      y[head.y + i * s.queries * s.dimension + c] = from_float<bf16>(mean);
    }
  });
}

void run_backward(const PackedAttention& s, const CudnnAttention::Gradient& g) {
  const float scale = 1 / std::sqrt(static_cast<float>(s.dimension));
  const std::int64_t columns = columns_of(s);
  std::vector<float> sums(static_cast<std::size_t>(s.sequences * s.length * columns));
  for_rows(s, g.qkv, [&](const Head& head, std::int64_t i, const std::vector<float>& scores) {
    const std::int64_t at = head.y + i * s.queries * s.dimension, q = head.q + i * columns;
    const float delta = dot(g.dy + at, g.y + at, s.dimension);
    for (std::size_t j = 0; j < scores.size(); ++j) {
      const std::int64_t row = static_cast<std::int64_t>(j) * columns;
      const float p = std::exp(scores[j] - g.log_sum[head.log_sum + i]);
      const float ds = p * (dot(g.dy + at, g.qkv + head.v + row, s.dimension) - delta) * scale;
      for (std::int64_t c = 0; c < s.dimension; ++c) {
        sums[static_cast<std::size_t>(head.v + row + c)] += p * to_float(g.dy[at + c]);
        sums[static_cast<std::size_t>(q + c)] += ds * to_float(g.qkv[head.k + row + c]);
        sums[static_cast<std::size_t>(head.k + row + c)] += ds * to_float(g.qkv[q + c]);
      }
    }
  });
  for (std::size_t i = 0; i < sums.size(); ++i) g.dqkv[i] = from_float<bf16>(sums[i]);
}

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

/// Queues a call whose addresses cuDNN would take.
template <class Work>
void enqueue_call(DeviceMemory& memory, const char* name, const PackedAttention& s, bool aligned,
                  const Work& work) {
  const cuda_on_cpu::What what{
      name, cuda_on_cpu::hash(s.sequences, s.length, s.queries, s.keys, s.dimension, s.is_causal)};
  cuda_on_cpu::enqueue(memory.stream(), what, [aligned, work] {
    if (!aligned) throw cuda_on_cpu::Violation("cuDNN was given an address that 16 does not divide");
    ++cuda_on_cpu::launches().products;
    const cuda_on_cpu::ClosedHost closed;
    work();
  });
}

}  // namespace

struct CudnnAttention::Plans {};

CudnnAttention::CudnnAttention(DeviceMemory& memory) : memory_(memory) {}
CudnnAttention::~CudnnAttention() = default;

/// As the frontend checks for sm_80, which has the least.
bool CudnnAttention::supports(const PackedAttention& s, bool trains) {
  return s.dimension % 8 == 0 && s.dimension <= 128 && s.queries % s.keys == 0 && !(trains && s.length == 1);
}

void CudnnAttention::forward(const PackedAttention& shape, const bf16* qkv, bf16* y, float* log_sum) {
  enqueue_call(memory_, "attention", shape, is_aligned(qkv) && is_aligned(y),
               [=] { run_forward(shape, qkv, y, log_sum); });
}

void CudnnAttention::backward(const PackedAttention& shape, const Gradient& g) {
  enqueue_call(memory_, "backward of attention", shape,
               is_aligned(g.dy) && is_aligned(g.qkv) && is_aligned(g.y) && is_aligned(g.dqkv),
               [=] { run_backward(shape, g); });
}

CudnnReport find_cudnn() {
  return {.version = "stand-in", .explanation = "attention in bf16 on the harness"};
}

}  // namespace bireme::cuda
