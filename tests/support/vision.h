#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "distributed/communicator.h"
#include "models/vision_transformer.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"

namespace bireme::test {

/// The settings of a golden vision transformer.
VisionTransformerOptions golden_vision_options(const Golden& golden);

/// Copies `weights/NAME` into each parameter, named NAME after `prefix`, of which a rank may hold a part.
void load_golden_weights(const Golden& golden, ParameterSet& parameters, const std::string& prefix = "");

/// The gradients of the parameters against `GROUP/NAME`, within tolerance · (largest magnitude) + absolute.
/// Parameters without a golden gradient are left out, but there must be `at_least` with one.
void expect_golden_gradients(const Golden& golden, const std::string& group, const ParameterSet& parameters,
                             double tolerance, int at_least, double absolute = 0);

/// A vision transformer with a backend and parameters of its own, on one rank unless told.
struct VisionFixture {
  VisionFixture(const VisionTransformerOptions& options, DType master, Communicator* tensor = nullptr);

  /// Makes a fresh tape and forgets the gradients.
  void start();
  /// The gradient of a leaf or parameter is there afterwards.
  void backward(const Var& y, const Tensor& dy) {
    tape->backward(y, &parameters, {}, convert(*memory, dy, y.dtype()));
  }
  Tensor constant(const Tensor& values) const {
    return convert(*memory, values, parameters.flat_values().dtype());
  }
  VisionForward how() const {
    return {.type = parameters.flat_values().dtype(), .keep = {}, .recompute = false};
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  std::unique_ptr<Communicator> single = make_single_process();
  ParameterSet parameters;
  VisionTransformer model;
  std::unique_ptr<Tape> tape;
};

/// Pixels or cotangents that depend on nothing but the seed, multiples of 1/16 in -1 … 1.
Tensor random_tensor(Memory& memory, const Shape& shape, std::uint64_t seed, DType type = DType::f32);

}  // namespace bireme::test
