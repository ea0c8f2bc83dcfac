#include "distributed/tensor_parallel.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "core/tensor/random.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

Initializer uniform() { return {.law = Initializer::Law::uniform, .value = 1}; }

LinearOptions layer(const char* name, std::int64_t in, std::int64_t out, int blocks = 1) {
  return {.name = name, .in = in, .out = out, .weight = uniform(), .bias = uniform(), .blocks = blocks};
}

/// A column layer with GELU into a row layer, as in an MLP: the pair that shares one sum over ranks.
struct Pair {
  Pair(Communicator& tensor, DType type)
      : first(parameters, layer("first", 6, 12), tensor), second(parameters, layer("second", 12, 5), tensor) {
    parameters.build(*memory, {.master = type, .gradients = true, .bf16_copy = false});
    parameters.initialize(3);
    parameters.begin_gradients();
  }
  Tensor draw(const Shape& shape, std::uint64_t seed) const {
    const Tensor tensor(*memory, shape, parameters.flat_values().dtype());
    RandomStream random(seed, 0, RandomUse::test);
    const Tensor values(*memory, shape, DType::f64);
    for (double& value : values.values<double>()) value = random.normal();
    copy(values, tensor);
    return tensor;
  }
  void run() {
    Tape tape(*backend);
    const Var x = tape.leaf(draw({7, 6}, 1));
    const Var y = second.forward(tape, first.forward_gelu(tape, x));
    output = y.value();
    tape.backward(y, &parameters, {}, draw({7, 5}, 2));
    dx = tape.gradient(x);
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  ParameterSet parameters;
  ColumnLinear first;
  RowLinear second;
  Tensor output, dx;
};

TEST(TensorParallel, PairOfLayersMatchesTheWholePair) {
  for (const int ranks : {2, 3, 4}) {
    for (const DType type : {DType::f32, DType::f64}) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks, " + to_string(type));
      run_on_ranks(ranks, [type](Communicator& tensor) {
        const auto single = make_single_process();
        Pair whole(*single, type), split(tensor, type);
        whole.run();
        split.run();
        // The same sums of up to 12 terms in another order: a few roundings of 6e-8 (1e-16) each.
        const double t = type == DType::f64 ? 1e-13 : 1e-5;
        expect_close(split.output, whole.output, t, 0, "y");
        expect_close(split.dx, whole.dx, t, 0, "dx");
        for (std::size_t i = 0; i < whole.parameters.size(); ++i) {
          const Parameter &part = split.parameters[i], &all = whole.parameters[i];
          const Tensor expected(*whole.memory, part.shape(), type);
          copy_part(all.value(), expected, part.partition());
          expect_identical(part.value(), expected, part.name());
          copy_part(all.gradient(), expected, part.partition());
          expect_close(part.gradient(), expected, t, 0, "gradient of " + part.name());
        }
      });
    }
  }
}

TEST(TensorParallel, HoldsEachBlockOfAFusedLayer) {
  run_on_ranks(2, [](Communicator& tensor) {
    const auto memory = make_host_memory();
    const auto single = make_single_process();
    ParameterSet all, mine;
    const ColumnLinear whole(all, layer("qkv", 2, 12, 3), *single),
        split(mine, layer("qkv", 2, 12, 3), tensor);
    for (ParameterSet* parameters : {&all, &mine}) {
      parameters->build(*memory, {.master = DType::f32, .gradients = false, .bf16_copy = false});
      parameters->initialize(1);
    }
    // Blocks of four rows; rank r holds rows 2r and 2r + 1 of each.
    for (int block = 0; block < 3; ++block)
      expect_identical(mine[0].value().slice(2 * block, 2 * block + 2),
                       all[0].value().slice(4 * block + 2 * tensor.rank(), 4 * block + 2 * tensor.rank() + 2),
                       "block");
  });
}

TEST(TensorParallel, RefusesDegreesThatDoNotDivideAndListsThoseThatDo) {
  const std::string message = error_of(
      ErrorKind::usage, [] { require_tensor_degree(3, 16, "attention heads", "vision transformer"); });
  EXPECT_TRUE(mentions(message, {"parallel.tensor is 3, but 16 attention heads do not divide by 3",
                                 "choose 1, 2, 4, 8 or 16"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { require_tensor_degree(2, 1, "attention heads", ""); }),
                       {"choose 1"}));
  require_tensor_degree(4, 16, "attention heads", "");
}

}  // namespace
}  // namespace bireme::test
