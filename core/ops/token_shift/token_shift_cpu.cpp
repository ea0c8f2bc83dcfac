#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/token_shift/token_shift_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <array>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/token_shift/token_shift.h"
#include "core/ops/token_shift/token_shift_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// Pointers to the same row of each of N tensors.
template <class T, std::size_t N>
std::array<T*, N> rows_at(const std::vector<Tensor>& tensors, std::int64_t offset) {
  std::array<T*, N> rows{};
  for (std::size_t i = 0; i < N; ++i) rows[i] = tensors[i].data<std::remove_const_t<T>>() + offset;
  return rows;
}

/// The token before row r of [B·T, C]: null where there is none.
template <class T>
const T* token_before(const Sequences& sequences, const Tensor& x, const Tensor& carried, std::int64_t r) {
  const std::int64_t b = r / sequences.length, t = r % sequences.length, channels = x.channels();
  const std::uint8_t* starts = sequences.starts_of(b);
  if (starts != nullptr && starts[t] != 0) return nullptr;
  if (t > 0) return x.data<T>() + (r - 1) * channels;
  return carried ? carried.data<T>() + b * channels : nullptr;
}

/// Whether row r + 1 exists and saw row r.
bool is_followed(const Sequences& sequences, std::int64_t r) {
  const std::int64_t b = r / sequences.length, t = r % sequences.length;
  if (t + 1 == sequences.length) return false;
  const std::uint8_t* starts = sequences.starts_of(b);
  return starts == nullptr || starts[t + 1] == 0;
}

template <class T, std::size_t N>
void forward(const TokenShiftForward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const auto mu = rows_at<L, N>(a.mu, 0);
  parallel_rows(a.sequences.rows(), (1 + std::int64_t{N}) * channels * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const T* x_row = a.x.data<T>() + r * channels;
                    const T* before_row = token_before<T>(a.sequences, a.x, a.carried, r);
                    const auto mixed = rows_at<T, N>(a.mixed, r * channels);
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      const auto before = before_row != nullptr ? load(d, before_row + c, part) : hn::Zero(d);
                      const auto step = hn::Sub(load(d, x_row + c, part), before);
                      for (std::size_t i = 0; i < N; ++i)
                        store(d, hn::MulAdd(load(d, mu[i] + c, part), step, before), mixed[i] + c, part);
                    });
                  }
                });
  if (!a.carried) return;
  for (std::int64_t b = 0; b < a.sequences.count; ++b) {
    const std::int64_t last = (b + 1) * a.sequences.length - 1;
    std::copy_n(a.x.data<T>() + last * channels, channels, a.carried.data<T>() + b * channels);
  }
}

template <class T, std::size_t N>
void backward_row(const TokenShiftBackward& a, std::int64_t r, Lane<T>* dmu_line) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels(), row = r * channels;
  const T* x_row = a.x.data<T>() + row;
  const T* before_row = token_before<T>(a.sequences, a.x, a.before, r);
  const auto mu = rows_at<L, N>(a.mu, 0);
  const auto dm = rows_at<const T, N>(a.dmixed, row);
  T* dx_row = a.dx ? a.dx.tensor.data<T>() + row : nullptr;
  const bool followed = is_followed(a.sequences, r);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto before = before_row != nullptr ? load(d, before_row + c, part) : hn::Zero(d);
    const auto step = hn::Sub(load(d, x_row + c, part), before);
    auto dx = hn::Zero(d);
    for (std::size_t i = 0; i < N; ++i) {
      const auto rate = load(d, mu[i] + c, part), here = load(d, dm[i] + c, part);
      L* sum = dmu_line + static_cast<std::int64_t>(i) * channels + c;
      store(d, hn::MulAdd(here, step, load(d, sum, part)), sum, part);
      dx = hn::MulAdd(rate, here, dx);
      if (followed) dx = hn::MulAdd(hn::Sub(hn::Set(d, 1), rate), load(d, dm[i] + channels + c, part), dx);
    }
    if (dx_row != nullptr) put(d, dx, dx_row + c, a.dx.accumulate, part);
  });
}

template <class T, std::size_t N>
void before_backward(const TokenShiftBackward& a) {
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const auto mu = rows_at<Lane<T>, N>(a.mu, 0);
  for (std::int64_t b = 0; b < a.sequences.count; ++b) {
    const std::uint8_t* starts = a.sequences.starts_of(b);
    const bool is_read = starts == nullptr || starts[0] == 0;
    const auto dm = rows_at<const T, N>(a.dmixed, b * a.sequences.length * channels);
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      auto total = hn::Zero(d);
      for (std::size_t i = 0; i < N && is_read; ++i)
        total = hn::MulAdd(hn::Sub(hn::Set(d, 1), load(d, mu[i] + c, part)), load(d, dm[i] + c, part), total);
      put(d, total, a.dbefore.tensor.data<T>() + b * channels + c, a.dbefore.accumulate, part);
    });
  }
}

template <class T, std::size_t N>
void backward(const TokenShiftBackward& a, Memory& memory) {
  const std::int64_t channels = a.x.channels();
  PartialSums<Lane<T>> sums(memory, a.sequences.rows(), std::int64_t{N} * channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, Lane<T>* line) {
    for (std::int64_t r = begin; r < end; ++r) backward_row<T, N>(a, r, line);
  });
  for (std::size_t i = 0; i < N; ++i) sums.total(static_cast<std::int64_t>(i) * channels, channels, a.dmu[i]);
  if (a.dbefore) before_backward<T, N>(a);
}

class CpuTokenShift final : public TokenShiftKernels {
 public:
  explicit CpuTokenShift(Memory& memory) : memory_(memory) {}

  void token_shift(const TokenShiftForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      switch (a.mu.size()) {
        case 1: forward<T, 1>(a); break;
        case 2: forward<T, 2>(a); break;
        default: forward<T, 3>(a); break;
      }
    });
  }
  void token_shift(const TokenShiftBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      switch (a.mu.size()) {
        case 1: backward<T, 1>(a, memory_); break;
        case 2: backward<T, 2>(a, memory_); break;
        default: backward<T, 3>(a, memory_); break;
      }
    });
  }

 private:
  Memory& memory_;
};
static_assert(kMostMixtures == 3);

std::unique_ptr<TokenShiftKernels> make_token_shift(Memory& memory) {
  return std::make_unique<CpuTokenShift>(memory);
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_token_shift);
std::unique_ptr<TokenShiftKernels> make_token_shift(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_token_shift)(memory);
}

}  // namespace bireme::cpu
#endif
