#pragma once

#include <limits>

#include "core/cuda/column_sums.cuh"
#include "core/cuda/warp.cuh"
#include "core/ops/loss/loss_kernels.h"

namespace bireme::cuda {

inline constexpr int kMostRowWarps = 8;

/// A block a row: one warp where there are few columns, as it needs no barriers. Calls f(constant of the
/// warps, grid).
template <class F>
void block_a_row(std::int64_t rows, std::int64_t columns, F&& f) {
  constexpr std::int64_t kFewColumns = 1024;  // 32 for each lane
  if (columns <= kFewColumns) {
    f(std::integral_constant<int, 1>{}, Grid{{to_unsigned(rows)}, {kWarp}});
  } else {
    f(std::integral_constant<int, kMostRowWarps>{}, Grid{{to_unsigned(rows)}, {kMostRowWarps * kWarp}});
  }
}

/// maxima[r] = max over c of x[r, c], or of x[r, c] - shift[c].
template <int Warps, class T>
__global__ void __launch_bounds__(Warps* kWarp)
    row_maximum_kernel(const T* x, const Lane<T>* shift, Lane<T>* maxima, std::int64_t columns) {
  __shared__ Lane<T> room[Warps];
  x += std::int64_t{blockIdx.x} * columns;
  Lane<T> most = std::numeric_limits<Lane<T>>::lowest();
  for (std::int64_t c = threadIdx.x; c < columns; c += Warps * kWarp) {
    const Lane<T> v = load(x + c) - (shift != nullptr ? shift[c] : Lane<T>{0});
    most = v > most ? v : most;
  }
  most = block_max<Warps>(most, room);
  if (threadIdx.x == 0) maxima[blockIdx.x] = most;
}

template <class T>
void dino_maxima(DeviceMemory& memory, const DinoMaxima& a) {
  using L = Lane<T>;
  block_a_row(a.student.rows(), a.student.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, row_maximum_kernel<decltype(warps)::value, T>, a.student.data<T>(), nullptr,
           a.student_maxima.data<L>(), a.student.channels());
  });
  block_a_row(a.teacher.rows(), a.teacher.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, row_maximum_kernel<decltype(warps)::value, T>, a.teacher.data<T>(),
           a.center.data<L>(), a.teacher_maxima.data<L>(), a.teacher.channels());
  });
}

template <class L>
struct TeacherRows {
  const L *center, *maxima;
  L sharpness;
  L *exponentials, *exponents;
  std::int64_t columns;
};

/// t becomes exp(a); the sums of exp(a) and exp(a)·a.
template <int Warps, class T>
__global__ void __launch_bounds__(Warps* kWarp) teacher_row_kernel(T* t, TeacherRows<Lane<T>> a) {
  using L = Lane<T>;
  __shared__ L room[Warps];
  t += std::int64_t{blockIdx.x} * a.columns;
  const L most = a.maxima[blockIdx.x];
  L exponentials = 0, exponents = 0;
  for (std::int64_t c = threadIdx.x; c < a.columns; c += Warps * kWarp) {
    const L exponent = (load(t + c) - a.center[c] - most) * a.sharpness, e = exp(exponent);
    store(t + c, e);
    exponentials += e;
    exponents += e * exponent;
  }
  exponentials = block_sum<Warps>(exponentials, room);
  exponents = block_sum<Warps>(exponents, room);
  if (threadIdx.x != 0) return;
  a.exponentials[blockIdx.x] = exponentials;
  a.exponents[blockIdx.x] = exponents;
}

template <class L>
struct StudentRows {
  const L* maxima;
  L sharpness;
  L *exponentials, *dots;
  std::int64_t rows, images, columns;
};

/// Rows stand crop by crop; blocks take them image by image, so that neighbours find their teachers in L2.
__device__ inline std::int64_t row_by_image(std::int64_t block, std::int64_t rows, std::int64_t images) {
  const std::int64_t crops = rows / images;
  return block % crops * images + block / crops;
}

/// The sums of exp(e) and of e times both globals' exp(a).
template <int Warps, class T>
__global__ void __launch_bounds__(Warps* kWarp)
    student_row_kernel(const T* student, const T* teacher, StudentRows<Lane<T>> a) {
  using L = Lane<T>;
  __shared__ L room[Warps];
  const std::int64_t row = row_by_image(blockIdx.x, a.rows, a.images), image = row % a.images;
  const T *s = student + row * a.columns, *first = teacher + image * a.columns,
          *second = first + a.images * a.columns;
  const L most = a.maxima[row];
  L exponentials = 0, with_first = 0, with_second = 0;
  for (std::int64_t c = threadIdx.x; c < a.columns; c += Warps * kWarp) {
    const L exponent = (load(s + c) - most) * a.sharpness;
    exponentials += exp(exponent);
    with_first += load(first + c) * exponent;
    with_second += load(second + c) * exponent;
  }
  exponentials = block_sum<Warps>(exponentials, room);
  with_first = block_sum<Warps>(with_first, room);
  with_second = block_sum<Warps>(with_second, room);
  if (threadIdx.x != 0) return;
  a.exponentials[row] = exponentials;
  a.dots[row] = with_first;
  a.dots[a.rows + row] = with_second;
}

template <class T>
void dino_sums(DeviceMemory& memory, const DinoSums& a) {
  using L = Lane<T>;
  const std::int64_t columns = a.student.channels(), rows = a.student.rows();
  sum_columns<T>(memory, a.teacher.data<T>(), a.teacher.rows(), columns, {a.teacher_logit_sum, false});
  block_a_row(a.teacher.rows(), a.teacher.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, teacher_row_kernel<decltype(warps)::value, T>, a.teacher.data<T>(),
           TeacherRows<L>{a.center.data<L>(), a.teacher_maxima.data<L>(), L{1} / a.teacher_temperature,
                          a.teacher_exponentials.data<L>(), a.teacher_exponents.data<L>(), columns});
  });
  block_a_row(rows, a.student.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, student_row_kernel<decltype(warps)::value, T>, a.student.data<T>(),
           a.teacher.data<T>(),
           StudentRows<L>{a.student_maxima.data<L>(), L{1} / a.student_temperature, a.exponentials.data<L>(),
                          a.dots.data<L>(), rows, a.teacher.rows() / 2, columns});
  });
}

template <class L>
struct DinoTotals {
  const L *exponentials, *dots, *teacher_exponentials, *teacher_exponents;
  std::int64_t rows, images;
  double pairs;
  L* loss;
  double* entropy;
};

/// One block: there are a few hundred rows.
template <int Warps, class L>
__global__ void __launch_bounds__(Warps* kWarp) dino_totals_kernel(DinoTotals<L> a) {
  __shared__ double room[Warps];
  double entropy = 0, loss = 0;
  for (std::int64_t i = threadIdx.x; i < 2 * a.images; i += Warps * kWarp) {
    const double total = a.teacher_exponentials[i];
    entropy += log(total) - a.teacher_exponents[i] / total;
  }
  for (std::int64_t r = threadIdx.x; r < a.rows; r += Warps * kWarp) {
    const std::int64_t crop = r / a.images, image = r % a.images;
    for (std::int64_t global = 0; global < 2; ++global)
      if (global != crop)
        loss += log(static_cast<double>(a.exponentials[r])) -
                a.dots[global * a.rows + r] /
                    static_cast<double>(a.teacher_exponentials[global * a.images + image]);
  }
  entropy = block_sum<Warps>(entropy, room);
  loss = block_sum<Warps>(loss, room);
  if (threadIdx.x != 0) return;
  *a.loss = static_cast<L>(loss / a.pairs);
  *a.entropy = entropy;
}

/// Column sums of q, which takes the place of exp(a) on the way.
template <class T>
struct ProbabilityOp {
  static constexpr int kSums = 1;
  T* teacher;
  const Lane<T>* exponentials;
  std::int64_t columns;
  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    T* entry = teacher + row * columns + column;
    const Lane<T> q = load(entry) * (1 / exponentials[row]);
    store(entry, q);
    sums[0] += q;
  }
};

template <class T>
void dino_finish(DeviceMemory& memory, const DinoFinish& a) {
  using L = Lane<T>;
  launch(memory.stream(), {{1}, {kMostRowWarps * kWarp}}, dino_totals_kernel<kMostRowWarps, L>,
         DinoTotals<L>{a.exponentials.data<L>(), a.dots.data<L>(), a.teacher_exponentials.data<L>(),
                       a.teacher_exponents.data<L>(), a.exponentials.elements(), a.teacher.rows() / 2,
                       a.pairs, a.loss.data<L>(), a.entropy_sum.data<double>()});
  ColumnTargets<L, 1> targets;
  targets.set(0, {a.mean_probability_sum, false});
  column_sums<ProbabilityOp<T>, L>(
      memory, {a.teacher.data<T>(), a.teacher_exponentials.data<L>(), a.teacher.channels()}, a.teacher.rows(),
      a.teacher.channels(), targets);
}

template <class L>
struct DinoGradient {
  const L *dloss, *maxima, *exponentials;
  L sharpness;
  double pairs, temperature;
  std::int64_t rows, images, columns;
};

template <int Warps, class T>
__global__ void __launch_bounds__(Warps* kWarp)
    dino_backward_kernel(T* student, const T* teacher, DinoGradient<Lane<T>> a) {
  using L = Lane<T>;
  const std::int64_t row = row_by_image(blockIdx.x, a.rows, a.images), image = row % a.images,
                     crop = row / a.images;
  T* s = student + row * a.columns;
  const T *first = teacher + image * a.columns, *second = first + a.images * a.columns;
  const double factor = static_cast<double>(*a.dloss) / (a.pairs * a.temperature);
  // A crop is compared with the globals other than itself: n_v of them.
  const double with_first = crop == 0 ? 0 : 1, with_second = crop == 1 ? 0 : 1;
  const L scale = static_cast<L>((with_first + with_second) * factor / a.exponentials[row]);
  const L first_scale = static_cast<L>(-with_first * factor),
          second_scale = static_cast<L>(-with_second * factor);
  const L most = a.maxima[row];
  for (std::int64_t c = threadIdx.x; c < a.columns; c += Warps * kWarp) {
    const L e = exp((load(s + c) - most) * a.sharpness);
    store(s + c, e * scale + (load(first + c) * first_scale + load(second + c) * second_scale));
  }
}

template <class T>
void dino_backward(DeviceMemory& memory, const DinoBackward& a) {
  using L = Lane<T>;
  block_a_row(a.student.rows(), a.student.channels(), [&](auto warps, const Grid& grid) {
    launch(memory.stream(), grid, dino_backward_kernel<decltype(warps)::value, T>, a.student.data<T>(),
           a.teacher.data<T>(),
           DinoGradient<L>{a.dloss.data<L>(), a.student_maxima.data<L>(), a.exponentials.data<L>(),
                           L{1} / a.student_temperature, a.pairs, a.student_temperature, a.student.rows(),
                           a.teacher.rows() / 2, a.student.channels()});
  });
}

}  // namespace bireme::cuda
