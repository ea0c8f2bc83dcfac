#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/token_shift/token_shift_kernels.h"

namespace bireme::cuda {

namespace {

constexpr int kMostMixed = 3;  // r, k and v

/// x, and what stands before it.
template <class T>
struct ShiftedRows {
  const T *x, *carried;
  const std::uint8_t* starts;
  const Lane<T>* mu[kMostMixed];
  std::int64_t length, channels;

  __device__ Lane<T> before(std::int64_t row, std::int64_t c) const {
    const std::int64_t t = row % length;
    if (starts != nullptr && starts[row] != 0) return 0;
    if (t > 0) return load(x + (row - 1) * channels + c);
    return carried != nullptr ? load(carried + row / length * channels + c) : Lane<T>{0};
  }
  /// Whether row + 1 exists and saw this row.
  __device__ bool is_followed(std::int64_t row) const {
    return row % length + 1 < length && (starts == nullptr || starts[row + 1] == 0);
  }
};

template <class T, int Mixed>
struct ShiftOp {
  ShiftedRows<T> rows;
  T* mixed[kMostMixed];

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t c = i % rows.channels;
    const Lane<T> before = rows.before(i / rows.channels, c), step = load(rows.x + i) - before;
    for (int j = 0; j < Mixed; ++j) store(mixed[j] + i, rows.mu[j][c] * step + before);
  }
};

/// The dmu as sums over rows, and dx entry by entry on the way.
template <class T, int Mixed>
struct ShiftGradientOp {
  static constexpr int kSums = Mixed;
  ShiftedRows<T> rows;
  const T* dmixed[kMostMixed];
  T* dx;
  bool accumulate;

  __device__ void add(std::int64_t row, std::int64_t c, Lane<T>* sums) const {
    const std::int64_t i = row * rows.channels + c;
    const Lane<T> step = load(rows.x + i) - rows.before(row, c);
    const bool followed = rows.is_followed(row);
    Lane<T> total = 0;
    for (int j = 0; j < Mixed; ++j) {
      const Lane<T> rate = rows.mu[j][c], own = load(dmixed[j] + i);
      sums[j] += own * step;
      total += rate * own;
      if (followed) total += (1 - rate) * load(dmixed[j] + i + rows.channels);
    }
    if (dx != nullptr) contribute(dx + i, total, accumulate);
  }
};

/// The gradient of the row before each sequence, which its first row alone has seen.
template <class T, int Mixed>
struct ShiftBeforeOp {
  ShiftedRows<T> rows;
  const T* dmixed[kMostMixed];
  T* dbefore;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t c = i % rows.channels, row = i / rows.channels * rows.length;
    Lane<T> sum = 0;
    if (rows.length > 0 && (rows.starts == nullptr || rows.starts[row] == 0))
      for (int j = 0; j < Mixed; ++j) sum += (1 - rows.mu[j][c]) * load(dmixed[j] + row * rows.channels + c);
    contribute(dbefore + i, sum, accumulate);
  }
};

/// The last row of each sequence is carried to the next call.
template <class T>
struct CarryOp {
  const T* x;
  T* carried;
  std::int64_t length, channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    carried[i] = x[((i / channels + 1) * length - 1) * channels + i % channels];
  }
};

/// Calls f(constant of how many are mixed).
template <class F>
void dispatch_mixed(std::size_t count, F&& f) {
  switch (count) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    default: return f(std::integral_constant<int, 3>{});
  }
}

class CudaTokenShift final : public TokenShiftKernels {
 public:
  explicit CudaTokenShift(DeviceMemory& memory) : memory_(memory) {}

  void token_shift(const TokenShiftForward& a) const override {
    const Tensor starts = memory_.here(a.sequences.starts);
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      dispatch_mixed(a.mu.size(), [&](auto mixed) {
        ShiftOp<T, decltype(mixed)::value> op{shifted_rows<T>(a, a.carried, starts), {}};
        for (std::size_t i = 0; i < a.mixed.size(); ++i) op.mixed[i] = a.mixed[i].data<T>();
        elementwise<1>(memory_.stream(), a.x.elements(), false, op);
      });
      if (a.carried)
        elementwise<1>(memory_.stream(), a.carried.elements(), false,
                       CarryOp<T>{a.x.data<T>(), a.carried.data<T>(), a.sequences.length, a.x.channels()});
    });
  }
  void token_shift(const TokenShiftBackward& a) const override {
    const Tensor starts = memory_.here(a.sequences.starts);
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      dispatch_mixed(a.mu.size(), [&](auto mixed) {
        constexpr int kMixed = decltype(mixed)::value;
        ShiftGradientOp<T, kMixed> op{shifted_rows<T>(a, a.before, starts), {}, nullptr, a.dx.accumulate};
        ColumnTargets<Lane<T>, kMixed> targets;
        for (std::size_t i = 0; i < a.dmu.size(); ++i) {
          op.dmixed[i] = a.dmixed[i].data<T>();
          targets.set(static_cast<int>(i), a.dmu[i]);
        }
        if (a.dx) op.dx = a.dx.tensor.data<T>();
        column_sums<ShiftGradientOp<T, kMixed>, Lane<T>>(memory_, op, a.x.rows(), a.x.channels(), targets);
        if (!a.dbefore) return;
        ShiftBeforeOp<T, kMixed> first{op.rows, {}, a.dbefore.tensor.data<T>(), a.dbefore.accumulate};
        for (std::size_t j = 0; j < a.dmixed.size(); ++j) first.dmixed[j] = a.dmixed[j].data<T>();
        elementwise<1>(memory_.stream(), a.dbefore.tensor.elements(), false, first);
      });
    });
  }

 private:
  template <class T, class A>
  static ShiftedRows<T> shifted_rows(const A& a, const Tensor& carried, const Tensor& starts) {
    ShiftedRows<T> rows{a.x.template data<T>(),
                        data_or_null<T>(carried),
                        data_or_null<std::uint8_t>(starts),
                        {},
                        a.sequences.length,
                        a.x.channels()};
    for (std::size_t i = 0; i < a.mu.size(); ++i) rows.mu[i] = a.mu[i].template data<Lane<T>>();
    return rows;
  }

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<TokenShiftKernels> make_token_shift(DeviceMemory& memory) {
  return std::make_unique<CudaTokenShift>(memory);
}

}  // namespace bireme::cuda
