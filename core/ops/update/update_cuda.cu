#include <vector>

#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/cuda/warp.cuh"
#include "core/ops/update/update_kernels.h"

namespace bireme::cuda {

namespace {

constexpr int kUpdateWarps = 8, kUpdateThreads = kUpdateWarps * kWarp;
constexpr std::int64_t kPiece = 8192;  // of a block: eight loads of 128 bits a thread

/// A slice and how many pieces lie before it: a block finds its slice by bisection, so that all parameters
/// are one launch.
struct Piecewise {
  std::int64_t begin, end, pieces_before;
};

__device__ int slice_of(const Piecewise* slices, int count, std::int64_t piece) {
  int low = 0, high = count;  // slices[low].pieces_before <= piece < slices[high].pieces_before
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (slices[middle].pieces_before <= piece ? low : high) = middle;
  }
  return low;
}

struct AdamWArguments {
  float* values;
  const float* gradients;
  float *first, *second;
  bf16* copy;
  const Piecewise* pieces;
  const AdamWSlice* slices;
  int count;
  float beta1, beta2, epsilon;
};

__global__ void __launch_bounds__(kUpdateThreads) adamw_kernel(AdamWArguments a) {
  const int index = slice_of(a.pieces, a.count, blockIdx.x);
  const Piecewise piece = a.pieces[index];
  const AdamWSlice s = a.slices[index];
  const std::int64_t begin = piece.begin + (blockIdx.x - piece.pieces_before) * kPiece;
  const std::int64_t end = begin + kPiece < piece.end ? begin + kPiece : piece.end;
  const float decay = 1 - s.learning_rate * s.weight_decay, rate = s.learning_rate / s.bias1;
  const float root = 1 / sqrtf(s.bias2);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kUpdateThreads) {
    const float g = s.gradient_scale * a.gradients[i];
    const float m = a.beta1 * a.first[i] + (1 - a.beta1) * g;
    const float v = a.beta2 * a.second[i] + (1 - a.beta2) * (g * g);
    const float moved = decay * a.values[i] - rate * m / (sqrtf(v) * root + a.epsilon);
    a.first[i] = m;
    a.second[i] = v;
    a.values[i] = moved;
    if (a.copy != nullptr) store(a.copy + i, moved);
  }
}

/// average ← momentum · average + (1 - momentum) · values
struct AverageOp {
  const float* values;
  float* average;
  bf16* copy;
  float momentum;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto v = load_pack<N>(values + i);
    auto moved = load_pack<N>(average + i);
    for (int j = 0; j < N; ++j) moved.v[j] = momentum * moved.v[j] + (1 - momentum) * v.v[j];
    store_pack<N>(average + i, moved);
    if (copy != nullptr) store_pack<N>(copy + i, moved);
  }
};

__global__ void __launch_bounds__(kUpdateThreads)
    squares_kernel(const float* values, const Piecewise* slices, int count, double* parts) {
  __shared__ double room[kUpdateWarps];
  const Piecewise piece = slices[slice_of(slices, count, blockIdx.x)];
  const std::int64_t begin = piece.begin + (blockIdx.x - piece.pieces_before) * kPiece;
  const std::int64_t end = begin + kPiece < piece.end ? begin + kPiece : piece.end;
  double total = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kUpdateThreads) {
    const double x = values[i];
    total += x * x;
  }
  total = block_sum<kUpdateWarps>(total, room);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

/// One thread a slice: its parts in order.
__global__ void slice_totals_kernel(const double* parts, const Piecewise* slices, int count,
                                    std::int64_t pieces, double* totals) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  const std::int64_t end = i + 1 < count ? slices[i + 1].pieces_before : pieces;
  double total = 0;
  for (std::int64_t p = slices[i].pieces_before; p < end; ++p) total += parts[p];
  totals[i] = total;
}

class CudaUpdate final : public UpdateKernels {
 public:
  explicit CudaUpdate(DeviceMemory& memory) : memory_(memory) {}

  void adamw(const AdamW& a) const override {
    Cut cut;
    std::vector<AdamWSlice> kept;
    for (const AdamWSlice& slice : a.slices)
      if (cut.add(slice.begin, slice.end)) kept.push_back(slice);
    if (cut.pieces == 0) return;
    const Tensor pieces = memory_.upload(std::span<const Piecewise>(cut.slices)),
                 slices = memory_.upload(std::span<const AdamWSlice>(kept));
    launch(memory_.stream(), {{to_unsigned(cut.pieces)}, {kUpdateThreads}}, adamw_kernel,
           AdamWArguments{.values = a.values.data<float>(),
                          .gradients = a.gradients.data<float>(),
                          .first = a.first_moment.data<float>(),
                          .second = a.second_moment.data<float>(),
                          .copy = data_or_null<bf16>(a.bf16_copy),
                          .pieces = reinterpret_cast<const Piecewise*>(pieces.raw()),
                          .slices = reinterpret_cast<const AdamWSlice*>(slices.raw()),
                          .count = static_cast<int>(kept.size()),
                          .beta1 = a.beta1,
                          .beta2 = a.beta2,
                          .epsilon = a.epsilon});
  }

  void average(const Average& a) const override {
    const AverageOp op{a.values.data<float>(), a.average.data<float>(), data_or_null<bf16>(a.bf16_copy),
                       a.momentum};
    constexpr int kPack = kWidth<float, bf16>;
    elementwise<kPack>(memory_.stream(), a.values.elements(),
                       fits_packs(a.values.elements(), kPack, op.values, op.average, op.copy), op);
  }

  void squared_norms(const Tensor& values, std::span<const std::pair<std::int64_t, std::int64_t>> slices,
                     std::span<double> result) const override {
    std::fill(result.begin(), result.end(), 0.0);
    Cut cut;
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < slices.size(); ++i)
      if (cut.add(slices[i].first, slices[i].second)) kept.push_back(i);
    if (cut.pieces == 0) return;
    const int count = static_cast<int>(kept.size());
    const Tensor pieces = memory_.upload(std::span<const Piecewise>(cut.slices));
    const Tensor parts(memory_, {cut.pieces}, DType::f64), totals(memory_, {count}, DType::f64);
    const auto* list = reinterpret_cast<const Piecewise*>(pieces.raw());
    launch(memory_.stream(), {{to_unsigned(cut.pieces)}, {kUpdateThreads}}, squares_kernel,
           values.data<float>(), list, count, parts.data<double>());
    launch(memory_.stream(), {{to_unsigned(ceil_div(count, 128))}, {128}}, slice_totals_kernel,
           parts.data<double>(), list, count, cut.pieces, totals.data<double>());
    const Tensor found = on_host(totals);
    for (std::size_t i = 0; i < kept.size(); ++i) result[kept[i]] = found.values<double>()[i];
  }

 private:
  /// Slices of differing size, cut into pieces of one.
  struct Cut {
    std::vector<Piecewise> slices;
    std::int64_t pieces = 0;

    bool add(std::int64_t begin, std::int64_t end) {
      if (end <= begin) return false;
      slices.push_back({begin, end, pieces});
      pieces += ceil_div(end - begin, kPiece);
      return true;
    }
  };

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<UpdateKernels> make_update(DeviceMemory& memory) {
  return std::make_unique<CudaUpdate>(memory);
}

}  // namespace bireme::cuda
