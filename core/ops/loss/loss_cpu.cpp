#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/loss/loss_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <limits>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/loss/loss_kernels.h"
#include "core/ops/loss/token_loss_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// max over c of x[c], or of x[c] - shift[c] where a shift is given.
template <class T>
Lane<T> row_maximum(const T* x, const Lane<T>* shift, std::int64_t columns) {
  using L = Lane<T>;
  const Lanes<T> d;
  const L lowest = std::numeric_limits<L>::lowest();
  auto largest = hn::Set(d, lowest);
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    auto v = load(d, x + c, part);
    if (shift != nullptr) v = hn::Sub(v, load(d, shift + c, part));
    largest = hn::Max(largest, keep(d, v, part, lowest));
  });
  return maximum(d, largest);
}

template <class T>
void dino_maxima(const DinoMaxima& a) {
  using L = Lane<T>;
  const std::int64_t columns = a.student.channels();
  parallel_rows(
      a.student.rows(), columns * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r)
          a.student_maxima.data<L>()[r] = row_maximum<T>(a.student.data<T>() + r * columns, nullptr, columns);
      });
  parallel_rows(a.teacher.rows(), columns * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r)
                    a.teacher_maxima.data<L>()[r] =
                        row_maximum<T>(a.teacher.data<T>() + r * columns, a.center.data<L>(), columns);
                });
}

/// to[c] = Σ over rows, in order, of x[r, c] · scale[r]; scale null: 1. Where there is a scale, x is replaced
/// by the products.
template <class T>
void sum_columns(const Tensor& tensor, const Lane<T>* scale, Lane<T>* to) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t columns = tensor.channels(), rows = tensor.rows();
  parallel_chunks({.items = columns, .size = 1024}, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    std::fill(to + begin, to + end, L{0});
    for (std::int64_t r = 0; r < rows; ++r) {
      T* x = tensor.data<T>() + r * columns;
      for_vectors(d, end - begin, [&](std::int64_t i, auto part) HWY_ATTR {
        const std::int64_t c = begin + i;
        auto v = load(d, x + c, part);
        if (scale != nullptr) {
          v = hn::Mul(v, hn::Set(d, scale[r]));
          store(d, v, x + c, part);
        }
        store(d, hn::Add(load(d, to + c, part), v), to + c, part);
      });
    }
  });
}

/// t becomes exp(a); the sums of exp(a) and exp(a)·a.
template <class T>
void teacher_row(T* t, const DinoSums& a, std::int64_t r) {
  using L = Lane<T>;
  const Lanes<T> d;
  const L* center = a.center.data<L>();
  const auto largest = hn::Set(d, a.teacher_maxima.data<L>()[r]),
             sharpness = hn::Set(d, L{1} / a.teacher_temperature);
  auto exponentials = hn::Zero(d), exponents = hn::Zero(d);
  for_vectors(d, a.teacher.channels(), [&](std::int64_t c, auto part) HWY_ATTR {
    const auto exponent =
        hn::Mul(hn::Sub(hn::Sub(load(d, t + c, part), load(d, center + c, part)), largest), sharpness);
    const auto e = keep(d, exp(d, exponent), part);
    store(d, e, t + c, part);
    exponentials = hn::Add(exponentials, e);
    exponents = hn::MulAdd(e, exponent, exponents);
  });
  a.teacher_exponentials.data<L>()[r] = sum(d, exponentials);
  a.teacher_exponents.data<L>()[r] = sum(d, exponents);
}

/// The sums of exp(e) and of e times both globals' exp(a).
template <class T>
void student_row(const DinoSums& a, std::int64_t r) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t columns = a.student.channels(), images = a.teacher.rows() / 2;
  assert(images > 0);
  const std::int64_t image = r % images;
  const T *s = a.student.data<T>() + r * columns, *first = a.teacher.data<T>() + image * columns,
          *second = first + images * columns;
  const auto largest = hn::Set(d, a.student_maxima.data<L>()[r]),
             sharpness = hn::Set(d, L{1} / a.student_temperature);
  auto exponentials = hn::Zero(d), with_first = hn::Zero(d), with_second = hn::Zero(d);
  for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto exponent = hn::Mul(hn::Sub(load(d, s + c, part), largest), sharpness);
    exponentials = hn::Add(exponentials, keep(d, exp(d, exponent), part));
    with_first = hn::MulAdd(load(d, first + c, part), exponent, with_first);
    with_second = hn::MulAdd(load(d, second + c, part), exponent, with_second);
  });
  a.exponentials.data<L>()[r] = sum(d, exponentials);
  a.dots.data<L>()[r] = sum(d, with_first);
  a.dots.data<L>()[a.student.rows() + r] = sum(d, with_second);
}

/// Calls f(row) for all crop-major rows, the crops of an image one after another: their teacher rows stay in
/// cache.
template <class F>
void for_rows_by_image(std::int64_t rows, std::int64_t images, std::int64_t bytes_per_row, F f) {
  const std::int64_t crops = rows / images;
  parallel_rows(rows, bytes_per_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) f(i % crops * images + i / crops);
  });
}

template <class T>
void dino_sums(const DinoSums& a) {
  const std::int64_t columns = a.student.channels(), images = a.teacher.rows() / 2;
  sum_columns<T>(a.teacher, nullptr, a.teacher_logit_sum.data<Lane<T>>());
  parallel_rows(a.teacher.rows(), 2 * columns * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r)
                    teacher_row<T>(a.teacher.data<T>() + r * columns, a, r);
                });
  for_rows_by_image(a.student.rows(), images, columns * std::int64_t{sizeof(T)},
                    [&](std::int64_t r) { student_row<T>(a, r); });
}

template <class T>
void dino_finish(const DinoFinish& a, Memory& memory) {
  using L = Lane<T>;
  const std::int64_t rows = a.exponentials.elements(), teacher_rows = a.teacher.rows(),
                     images = teacher_rows / 2;
  assert(images > 0);
  const Tensor reciprocals(memory, {teacher_rows}, TypeOf<L>::value);
  double entropy = 0, loss = 0;
  for (std::int64_t i = 0; i < teacher_rows; ++i) {
    const double total = a.teacher_exponentials.data<L>()[i];
    reciprocals.data<L>()[i] = static_cast<L>(1 / total);
    entropy += std::log(total) - a.teacher_exponents.data<L>()[i] / total;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t crop = r / images, image = r % images;
    for (std::int64_t global = 0; global < 2; ++global) {
      if (global == crop) continue;
      const double total = a.teacher_exponentials.data<L>()[global * images + image];
      loss += std::log(double{a.exponentials.data<L>()[r]}) - a.dots.data<L>()[global * rows + r] / total;
    }
  }
  a.loss.data<L>()[0] = static_cast<L>(loss / a.pairs);
  a.entropy_sum.data<double>()[0] = entropy;
  sum_columns<T>(a.teacher, reciprocals.data<L>(), a.mean_probability_sum.data<L>());
}

template <class T>
void dino_backward(const DinoBackward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t columns = a.student.channels(), images = a.teacher.rows() / 2;
  const double factor = a.dloss.data<L>()[0] / (a.pairs * double{a.student_temperature});
  const auto sharpness = hn::Set(d, L{1} / a.student_temperature);
  for_rows_by_image(a.student.rows(), images, 2 * columns * std::int64_t{sizeof(T)}, [&](std::int64_t r) {
    const std::int64_t crop = r / images, image = r % images;
    T* s = a.student.data<T>() + r * columns;
    const T *first = a.teacher.data<T>() + image * columns, *second = first + images * columns;
    // A crop is compared with the globals other than itself: n_v of them.
    const double with_first = crop == 0 ? 0 : 1, with_second = crop == 1 ? 0 : 1;
    const auto scale =
        hn::Set(d, static_cast<L>((with_first + with_second) * factor / a.exponentials.data<L>()[r]));
    const auto first_scale = hn::Set(d, static_cast<L>(-with_first * factor));
    const auto second_scale = hn::Set(d, static_cast<L>(-with_second * factor));
    const auto largest = hn::Set(d, a.student_maxima.data<L>()[r]);
    for_vectors(d, columns, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto e = exp(d, hn::Mul(hn::Sub(load(d, s + c, part), largest), sharpness));
      auto ds = hn::Mul(load(d, first + c, part), first_scale);
      ds = hn::MulAdd(load(d, second + c, part), second_scale, ds);
      store(d, hn::MulAdd(e, scale, ds), s + c, part);
    });
  });
}

template <class L>
void cross_entropy_forward(const CrossEntropyForward& a) {
  const Lanes<L> d;
  const std::int64_t classes = a.logits.channels(), rows = a.logits.rows();
  parallel_rows(rows, classes * std::int64_t{sizeof(L)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const L* x = a.logits.data<L>() + r * classes;
      const L largest = row_maximum<L>(x, nullptr, classes);
      auto total = hn::Zero(d);
      for_vectors(d, classes, [&](std::int64_t c, auto part) HWY_ATTR {
        total = hn::Add(total, keep(d, exp(d, hn::Sub(load(d, x + c, part), hn::Set(d, largest))), part));
      });
      a.log_sum_exp.data<L>()[r] = largest + std::log(sum(d, total));
    }
  });
  double loss = 0;
  for (std::int64_t r = 0; r < rows; ++r)
    loss += double{a.log_sum_exp.data<L>()[r]} -
            a.logits.data<L>()[r * classes + a.labels.data<std::int32_t>()[r]];
  a.loss.data<L>()[0] = static_cast<L>(loss / a.count);
}

template <class L>
void cross_entropy_backward(const CrossEntropyBackward& a) {
  const Lanes<L> d;
  const std::int64_t classes = a.logits.channels();
  const auto factor = static_cast<L>(a.dloss.data<L>()[0] / a.count);
  parallel_rows(
      a.logits.rows(), 2 * classes * std::int64_t{sizeof(L)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          L* x = a.logits.data<L>() + r * classes;
          const auto total = hn::Set(d, a.log_sum_exp.data<L>()[r]);
          for_vectors(d, classes, [&](std::int64_t c, auto part) HWY_ATTR {
            store(d, hn::Mul(exp(d, hn::Sub(load(d, x + c, part), total)), hn::Set(d, factor)), x + c, part);
          });
          x[a.labels.data<std::int32_t>()[r]] -= factor;
        }
      });
}

class CpuLoss final : public LossKernels {
 public:
  explicit CpuLoss(Memory& memory) : memory_(memory) {}

  void dino_maxima(const DinoMaxima& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::dino_maxima<T>(a); });
  }
  void dino_sums(const DinoSums& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::dino_sums<T>(a); });
  }
  void dino_finish(const DinoFinish& a) const override {
    dispatch_float(a.teacher.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::dino_finish<T>(a, memory_); });
  }
  void dino_backward(const DinoBackward& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::dino_backward<T>(a); });
  }
  void cross_entropy(const CrossEntropyForward& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { cross_entropy_forward<L>(a); });
  }
  void cross_entropy(const CrossEntropyBackward& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { cross_entropy_backward<L>(a); });
  }
  void token_statistics(const TokenStatistics& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { HWY_NAMESPACE::token_statistics<L>(a); });
  }
  void token_rebase(const TokenRebase& a) const override { HWY_NAMESPACE::token_rebase(a); }
  void token_finish(const TokenFinish& a) const override {
    dispatch_lane(a.log_probability.dtype(), [&]<class P>(Type<P>) { HWY_NAMESPACE::token_finish<P>(a); });
  }
  void token_totals(const TokenTotals& a) const override {
    dispatch_lane(a.loss.dtype(), [&]<class L>(Type<L>) { HWY_NAMESPACE::token_totals<L>(a); });
  }
  void token_gradient(const TokenGradient& a) const override {
    dispatch_floats(a.logits.dtype(), a.dlogits.dtype(), [&]<class L, class G>(Type<L>, Type<G>) {
      if constexpr (!std::is_same_v<L, bf16>) HWY_NAMESPACE::token_gradient<L, G>(a);
    });
  }
  void soft_cap(const SoftCap& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { HWY_NAMESPACE::soft_cap<L>(a); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<LossKernels> make_loss(Memory& memory) { return std::make_unique<CpuLoss>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_loss);
std::unique_ptr<LossKernels> make_loss(Memory& memory) { return HWY_DYNAMIC_DISPATCH(make_loss)(memory); }

}  // namespace bireme::cpu
#endif
