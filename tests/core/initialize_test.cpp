#include <gtest/gtest.h>

#include <cmath>

#include "core/autograd/orthogonal.h"
#include "core/autograd/parameter.h"
#include "tests/support/expect.h"

namespace bireme::test {
namespace {

/// The values of one parameter, or of a rank's part of it.
Tensor initialized(const ParameterOptions& options, std::uint64_t seed = 1) {
  ParameterSet parameters;
  parameters.add(options);
  const auto memory = make_host_memory();
  parameters.build(*memory, {.master = DType::f64, .gradients = false});
  parameters.initialize(seed);
  return clone(*memory, parameters[0].value());
}

ParameterOptions orthogonal(const Shape& shape, double gain) {
  return {.name = "w", .shape = shape, .initial = {.law = Initializer::Law::orthogonal, .value = gain}};
}

/// The product of rows (or columns) i and j of a matrix.
double product(const Tensor& w, bool rows, std::int64_t i, std::int64_t j) {
  const std::int64_t m = w.shape()[0], n = w.shape()[1];
  const double* x = w.data<double>();
  double sum = 0;
  for (std::int64_t k = 0; k < (rows ? n : m); ++k)
    sum += rows ? x[i * n + k] * x[j * n + k] : x[k * n + i] * x[k * n + j];
  return sum;
}

TEST(Initialize, OrthogonalMatricesHaveOrthonormalRowsOrColumnsTimesTheGain) {
  for (const Shape& shape : {Shape{1, 1}, Shape{7, 7}, Shape{40, 9}, Shape{9, 40}, Shape{64, 64}}) {
    SCOPED_TRACE(to_string(shape));
    const Tensor w = initialized(orthogonal(shape, 3));
    const bool rows = shape[0] <= shape[1];
    for (std::int64_t i = 0; i < std::min(shape[0], shape[1]); ++i)
      for (std::int64_t j = 0; j <= i; ++j) EXPECT_NEAR(product(w, rows, i, j), i == j ? 9 : 0, 1e-12);
  }
}

TEST(Initialize, OrthogonalMatricesAreTheQOfTheirDraws) {
  // R = Qᵀ·A must be upper triangular with a positive diagonal.
  const std::int64_t m = 12, n = 5;
  const auto draw = [](std::int64_t i) { return std::sin(static_cast<double>(i * i + 1)); };
  const std::vector<double> q = orthogonal_matrix(m, n, draw);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double r = 0;
      for (std::int64_t k = 0; k < m; ++k) r += q[static_cast<std::size_t>(k * n + i)] * draw(k * n + j);
      if (i > j) {
        EXPECT_NEAR(r, 0, 1e-13);
      }
      if (i == j) {
        EXPECT_GT(r, 0);
      }
    }
}

TEST(Initialize, EveryRankHoldsItsPartOfTheSameWhole) {
  std::vector<double> values;
  for (int i = 0; i < 24; ++i) values.push_back(i * i);
  ParameterOptions given = {
      .name = "v", .shape = {24}, .initial = {.law = Initializer::Law::given, .value = 0, .values = values}};
  for (ParameterOptions options : {orthogonal({12, 8}, 1), given}) {
    const Tensor whole = initialized(options);
    for (int axis = 0; axis < options.shape.rank(); ++axis)
      for (int part = 0; part < 2; ++part) {
        options.partition = {.axis = axis, .blocks = 1, .part = part, .parts = 2};
        const Tensor own = initialized(options);
        const Tensor expected(*make_host_memory(), own.shape(), DType::f64);
        copy_part(whole, expected, options.partition);
        expect_identical(own, expected);
      }
  }
}

TEST(Initialize, GivenValuesArriveAsTheyAre) {
  const Tensor v =
      initialized({.name = "v",
                   .shape = {3},
                   .initial = {.law = Initializer::Law::given, .value = 0, .values = {1, -2, 5}}});
  EXPECT_EQ(v.data<double>()[0], 1);
  EXPECT_EQ(v.data<double>()[1], -2);
  EXPECT_EQ(v.data<double>()[2], 5);
}

}  // namespace
}  // namespace bireme::test
