#pragma once

#include <cstdint>

#include "core/tensor/random.h"
#include "core/tensor/tensor.h"

namespace bireme::test {

struct NormalLaw {
  double mean = 0, deviation = 1;
  std::uint64_t seed = 1;
};

/// Normal random numbers in fp64, the same in every run.
inline Tensor random_normal(const Shape& shape, const NormalLaw& law = {}) {
  const Tensor tensor(*make_host_memory(), shape, DType::f64);
  RandomStream random(law.seed, 0, RandomUse::test);
  for (double& x : tensor.values<double>()) x = law.mean + law.deviation * random.normal();
  return tensor;
}

}  // namespace bireme::test
