#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace bireme::test {

void expect_close(const Tensor& actual, const Tensor& expected, double relative, double absolute,
                  const std::string& what) {
  ASSERT_EQ(actual.elements(), expected.elements())
      << what << ": " << to_string(actual.shape()) << " against " << to_string(expected.shape());
  const auto memory = make_host_memory();
  const Tensor a = convert(*memory, actual, DType::f64), e = convert(*memory, expected, DType::f64);
  double largest = 0, worst = -1;
  std::int64_t where = 0;
  for (std::int64_t i = 0; i < e.elements(); ++i) largest = std::max(largest, std::abs(e.data<double>()[i]));
  for (std::int64_t i = 0; i < e.elements(); ++i) {
    double distance = std::abs(a.data<double>()[i] - e.data<double>()[i]);
    if (std::isnan(distance)) distance = INFINITY;
    if (distance > worst) {
      worst = distance;
      where = i;
    }
  }
  if (e.elements() == 0) return;
  EXPECT_LE(worst, relative * largest + absolute)
      << what << ": worst element " << where << " of " << to_string(actual.shape()) << ": "
      << a.data<double>()[where] << ", expected " << e.data<double>()[where] << " (largest magnitude "
      << largest << ")";
}

void expect_identical(const Tensor& actual, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.shape(), expected.shape()) << what;
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  const Tensor a = on_host(actual), e = on_host(expected);
  EXPECT_EQ(std::memcmp(a.raw(), e.raw(), e.bytes()), 0) << what << ": bits differ";
}

}  // namespace bireme::test
