#include "core/autograd/orthogonal.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace bireme {

namespace {

/// Row-major, n columns.
struct Matrix {
  std::int64_t m = 0, n = 0;
  std::vector<double> values;

  Matrix(std::int64_t rows, std::int64_t columns)
      : m(rows), n(columns), values(static_cast<std::size_t>(rows * columns)) {}
  double* row(std::int64_t i) { return values.data() + i * n; }
  const double* row(std::int64_t i) const { return values.data() + i * n; }
};

/// The upper triangle of Aᵀ·A.
Matrix gram(const Matrix& a) {
  Matrix g(a.n, a.n);
  constexpr std::int64_t kLines = 16;  // of the result at a time: they stay in cache while A streams by
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t begin = 0; begin < a.n; begin += kLines) {
    const std::int64_t end = std::min(a.n, begin + kLines);
    std::int64_t r = 0;
    for (; r + 4 <= a.m; r += 4) {
      const double *a0 = a.row(r), *a1 = a.row(r + 1), *a2 = a.row(r + 2), *a3 = a.row(r + 3);
      for (std::int64_t i = begin; i < end; ++i) {
        double* to = g.row(i);
        for (std::int64_t j = i; j < a.n; ++j)
          to[j] += a0[i] * a0[j] + a1[i] * a1[j] + a2[i] * a2[j] + a3[i] * a3[j];
      }
    }
    for (; r < a.m; ++r)
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t j = i; j < a.n; ++j) g.row(i)[j] += a.row(r)[i] * a.row(r)[j];
  }
  return g;
}

/// R with Rᵀ·R = G and a positive diagonal, in place of the upper triangle of G.
void cholesky(Matrix& g) {
  for (std::int64_t k = 0; k < g.n; ++k) {
    double* const line = g.row(k);
    const double pivot = std::sqrt(line[k]);
    for (std::int64_t j = k; j < g.n; ++j) line[j] /= pivot;
#pragma omp parallel for schedule(static) if (g.n - k > 256)
    for (std::int64_t i = k + 1; i < g.n; ++i)
      for (std::int64_t j = i; j < g.n; ++j) g.row(i)[j] -= line[i] * line[j];
  }
}

/// A·R⁻¹ in place of A, by forward substitution in each row: q_k = (a_k - Σ_{i<k} q_i R_ik) / R_kk.
void divide(Matrix& a, const Matrix& r) {
  // Four rows share what they read of R.
  constexpr std::int64_t kRows = 4;
#pragma omp parallel for schedule(static)
  for (std::int64_t begin = 0; begin < a.m; begin += kRows) {
    const std::int64_t end = std::min(a.m, begin + kRows);
    for (std::int64_t k = 0; k < a.n; ++k) {
      const double* line = r.row(k);
      for (std::int64_t i = begin; i < end; ++i) {
        double* const q = a.row(i);
        q[k] /= line[k];
        for (std::int64_t j = k + 1; j < a.n; ++j) q[j] -= q[k] * line[j];
      }
    }
  }
}

}  // namespace

std::vector<double> orthogonal_matrix(std::int64_t rows, std::int64_t columns,
                                      const std::function<double(std::int64_t)>& normal) {
  const bool tall = rows >= columns;
  Matrix a(std::max(rows, columns), std::min(rows, columns));
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < a.m; ++i)
    for (std::int64_t j = 0; j < a.n; ++j) a.row(i)[j] = normal(tall ? i * columns + j : j * columns + i);
  // QR by way of the Gram matrix, all of it products. Each pass leaves an error of the condition number
  // squared times 1e-16; the second starts from nearly orthonormal columns and ends at rounding.
  for (int pass = 0; pass < 2; ++pass) {
    Matrix r = gram(a);
    cholesky(r);
    divide(a, r);
  }
  if (tall) return std::move(a.values);
  std::vector<double> result(a.values.size());
  for (std::int64_t i = 0; i < a.m; ++i)
    for (std::int64_t j = 0; j < a.n; ++j) result[static_cast<std::size_t>(j * columns + i)] = a.row(i)[j];
  return result;
}

}  // namespace bireme
