#pragma once

#include <functional>
#include <vector>

#include "core/autograd/tape.h"

namespace bireme::test {

struct OpInput {
  Tensor value;              ///< fp64
  bool is_residual = false;  ///< stays fp32 when the op computes in bf16
};

/// An op on given inputs and parameters: one description serves the check of its gradients, of its types and
/// of its threads.
struct OpCase {
  std::vector<OpInput> inputs;     ///< become leaves; each run gets copies, so an op may consume them
  std::vector<Tensor> parameters;  ///< fp64; become trainable parameters, in this order
  /// `type` is the compute type. Every result counts: each is multiplied by fixed random numbers and summed.
  std::function<std::vector<Var>(Tape&, const std::vector<Var>& x, ParameterSet& p, DType type)> run;
};

/// On the host.
struct OpResult {
  std::vector<Tensor> outputs, input_gradients, parameter_gradients;
};

/// Forward and backward in fp64, fp32 or bf16 (with fp32 parameters and residuals).
OpResult run_op(const Backend& backend, const OpCase& op, DType type);

struct GradientTolerance {
  double relative = 1e-7;  ///< of the largest entry of that gradient
  double absolute = 1e-9;
  double step = 1e-5;  ///< central differences err by about step², and by 1e-16 / step from rounding
};

/// Gradients of every input and parameter against central differences in fp64. Prints the worst element of a
/// failure.
void expect_gradients(const Backend& backend, const OpCase& op, const GradientTolerance& tolerance = {});

/// Results and gradients computed in `type` against fp64, from inputs rounded to `type` first: relative to
/// the largest entry.
void expect_agrees_with_double(const Backend& backend, const OpCase& op, DType type, double relative);

/// Results and gradients have the same bits on 1, 2 and 5 threads.
void expect_same_bits_on_any_number_of_threads(const Backend& backend, const OpCase& op, DType type);

}  // namespace bireme::test
