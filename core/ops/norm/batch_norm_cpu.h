// Batch normalisation on the CPU, for norm_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_NORM_BATCH_NORM_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_NORM_BATCH_NORM_CPU_H_
#undef BIREME_CORE_OPS_NORM_BATCH_NORM_CPU_H_
#else
#define BIREME_CORE_OPS_NORM_BATCH_NORM_CPU_H_
#endif

#include <vector>

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/norm/norm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// Mean and reciprocal deviation of each channel, from the sums over all ranks.
template <class L>
struct ChannelStatistics {
  std::vector<L> mean, reciprocal;

  ChannelStatistics(const Tensor& sums, const Tensor& squares, float epsilon) {
    const std::int64_t channels = squares.elements();
    const L count = sums.data<L>()[channels];
    for (std::int64_t c = 0; c < channels; ++c) {
      mean.push_back(sums.data<L>()[c] / count);
      reciprocal.push_back(L{1} / std::sqrt(squares.data<L>()[c] / count + static_cast<L>(epsilon)));
    }
  }
};

template <class T>
void batch_sums(const BatchSums& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  PartialSums<L> partial(memory, a.x.rows(), channels);
  partial.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* x = a.x.data<T>() + r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        store(d, hn::Add(load(d, line + c, part), load(d, x + c, part)), line + c, part);
      });
    }
  });
  partial.total(0, channels, a.sums.data<L>());
  a.sums.data<L>()[channels] = static_cast<L>(a.x.rows());
}

template <class T>
void batch_squares(const BatchSquares& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  std::vector<L> mean(static_cast<std::size_t>(channels));
  for (std::int64_t c = 0; c < channels; ++c)
    mean[static_cast<std::size_t>(c)] = a.sums.data<L>()[c] / a.sums.data<L>()[channels];
  PartialSums<L> partial(memory, a.x.rows(), channels);
  partial.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* x = a.x.data<T>() + r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto difference = hn::Sub(load(d, x + c, part), load(d, mean.data() + c, part));
        store(d, hn::MulAdd(difference, difference, load(d, line + c, part)), line + c, part);
      });
    }
  });
  partial.total(0, channels, a.squares.data<L>());
}

template <class L>
void move_running_statistics(const BatchNormForward& a) {
  const std::int64_t channels = a.squares.elements();
  const double count = a.sums.data<L>()[channels];
  const auto move = [&a](const Tensor& running, std::int64_t c, double value) {
    float& entry = running.data<float>()[c];
    entry = static_cast<float>((1.0 - double{a.momentum}) * double{entry} + double{a.momentum} * value);
  };
  for (std::int64_t c = 0; c < channels; ++c) {
    move(a.running_mean, c, a.sums.data<L>()[c] / count);
    move(a.running_variance, c, a.squares.data<L>()[c] / (count - 1));
  }
}

template <class T>
void batch_norm_forward(const BatchNormForward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const ChannelStatistics<L> statistics(a.sums, a.squares, a.epsilon);
  parallel_rows(
      a.x.rows(), 2 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* x = a.x.data<T>() + r * channels;
          T* y = a.y.data<T>() + r * channels;
          for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
            const auto normal =
                hn::Mul(hn::Sub(load(d, x + c, part), load(d, statistics.mean.data() + c, part)),
                        load(d, statistics.reciprocal.data() + c, part));
            store(
                d,
                hn::MulAdd(normal, load(d, a.gain.data<L>() + c, part), load(d, a.bias.data<L>() + c, part)),
                y + c, part);
          });
        }
      });
  move_running_statistics<L>(a);
}

template <class T>
void batch_norm_totals(const BatchNormTotals& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const ChannelStatistics<L> statistics(a.sums, a.squares, a.epsilon);
  PartialSums<L> partial(memory, a.x.rows(), 2 * channels);
  partial.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* x = a.x.data<T>() + r * channels;
      const T* dy = a.dy.data<T>() + r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto normal = hn::Mul(hn::Sub(load(d, x + c, part), load(d, statistics.mean.data() + c, part)),
                                    load(d, statistics.reciprocal.data() + c, part));
        const auto g = load(d, dy + c, part);
        store(d, hn::Add(load(d, line + c, part), g), line + c, part);
        L* products = line + channels + c;
        store(d, hn::MulAdd(g, normal, load(d, products, part)), products, part);
      });
    }
  });
  partial.total(0, 2 * channels, a.totals.data<L>());
  partial.total(0, channels, a.dbias);
  partial.total(channels, channels, a.dgain);
}

template <class T>
void batch_norm_backward(const BatchNormBackward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const ChannelStatistics<L> statistics(a.sums, a.squares, a.epsilon);
  const auto count = hn::Set(d, L{1} / a.sums.data<L>()[channels]);
  const L* totals = a.totals.data<L>();
  parallel_rows(
      a.x.rows(), 3 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* x = a.x.data<T>() + r * channels;
          const T* dy = a.dy.data<T>() + r * channels;
          T* dx = a.dx.tensor.data<T>() + r * channels;
          for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
            const auto reciprocal = load(d, statistics.reciprocal.data() + c, part);
            const auto normal =
                hn::Mul(hn::Sub(load(d, x + c, part), load(d, statistics.mean.data() + c, part)), reciprocal);
            const auto means =
                hn::MulAdd(normal, load(d, totals + channels + c, part), load(d, totals + c, part));
            const auto g = hn::NegMulAdd(means, count, load(d, dy + c, part));
            put(d, hn::Mul(hn::Mul(load(d, a.gain.data<L>() + c, part), reciprocal), g), dx + c,
                a.dx.accumulate, part);
          });
        }
      });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
