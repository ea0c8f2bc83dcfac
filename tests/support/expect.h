#pragma once

#include <string>

#include "core/tensor/tensor.h"

namespace bireme::test {

/// |actual - expected| ≤ relative · max|expected| + absolute, element by element. On failure prints the worst
/// element with both values. NaN never passes.
void expect_close(const Tensor& actual, const Tensor& expected, double relative, double absolute = 0,
                  const std::string& what = "");

/// Same bits.
void expect_identical(const Tensor& actual, const Tensor& expected, const std::string& what = "");

}  // namespace bireme::test
