#include "distributed/collective_ops.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

Tensor filled(Memory& memory, double value) {
  const Tensor tensor(memory, {2, 3}, DType::f32);
  fill(tensor, value);
  return tensor;
}

TEST(CollectiveOps, CopyToSumsOnTheWayBackOnly) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(filled(*memory, 7));
    const Var y = copy_to(tape, x, axis);
    expect_identical(y.value(), filled(*memory, 7), "y");
    tape.backward(y, nullptr, {}, filled(*memory, axis.rank() + 1));
    expect_identical(tape.gradient(x), filled(*memory, 1 + 2 + 3), "dx");
  });
}

TEST(CollectiveOps, CopyToLeavesSharedGradientsAlone) {
  run_on_ranks(2, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(filled(*memory, 7));
    const Tensor dy = filled(*memory, 5);  // still ours after backward
    tape.backward(copy_to(tape, x, axis), nullptr, {}, dy);
    expect_identical(dy, filled(*memory, 5), "dy");
    expect_identical(tape.gradient(x), filled(*memory, 10), "dx");
  });
}

TEST(CollectiveOps, ReduceFromSumsOnTheWayForwardOnly) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(filled(*memory, axis.rank() + 1));
    const Var y = reduce_from(tape, x, axis);
    expect_identical(y.value(), filled(*memory, 1 + 2 + 3), "y");
    tape.backward(y, nullptr, {}, filled(*memory, 5));
    expect_identical(tape.gradient(x), filled(*memory, 5), "dx");
  });
}

TEST(CollectiveOps, CopyToOfAParameterSumsItsGradient) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    ParameterSet parameters;
    Parameter& p = parameters.add(
        {.name = "p", .shape = {2, 3}, .initial = {.law = Initializer::Law::constant, .value = 7}});
    parameters.build(*memory, {});
    parameters.initialize(1);
    parameters.begin_gradients();
    for (int pass = 1; pass <= 2; ++pass) {  // the second adds
      Tape tape(*backend);
      const Var y = copy_to(tape, p, axis);
      expect_identical(y.value(), filled(*memory, 7), "y");
      tape.backward(y, nullptr, {}, filled(*memory, axis.rank() + 1));
      expect_identical(p.gradient(), filled(*memory, pass * (1 + 2 + 3)), "dp");
    }
  });
}

/// [rows, channels] of numbers that tell row and channel.
Tensor numbered(Memory& memory, std::int64_t rows, std::int64_t channels, double factor = 1,
                std::int64_t first_channel = 0) {
  const Tensor x(memory, {rows, channels}, DType::f32);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < channels; ++c)
      x.data<float>()[r * channels + c] =
          static_cast<float>(factor * static_cast<double>(10 * r + first_channel + c));
  return x;
}

TEST(CollectiveOps, ScatterChannelsSumsForwardAndGathersBack) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(numbered(*memory, 4, 6, axis.rank() + 1));
    const Var y = scatter_channels_from(tape, x, axis);
    expect_identical(y.value(), numbered(*memory, 4, 2, 1 + 2 + 3, 2 * axis.rank()), "y");
    tape.backward(y, nullptr, {}, numbered(*memory, 4, 2, 1, 2 * axis.rank()));
    expect_identical(tape.gradient(x), numbered(*memory, 4, 6), "dx");
  });
}

TEST(CollectiveOps, GatherChannelsJoinsForwardAndTakesItsOwnBack) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(numbered(*memory, 4, 2, 1, 2 * axis.rank()));
    const Var y = gather_channels(tape, x, axis);
    expect_identical(y.value(), numbered(*memory, 4, 6), "y");
    tape.backward(y, nullptr, {}, numbered(*memory, 4, 6, 5));
    expect_identical(tape.gradient(x), numbered(*memory, 4, 2, 5, 2 * axis.rank()), "dx");
  });
}

TEST(CollectiveOps, OwnChannelsTakesItsShareAndJoinsBack) {
  run_on_ranks(3, [](Communicator& axis) {
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    Tape tape(*backend);
    const Var x = tape.leaf(numbered(*memory, 4, 6));
    const Var y = own_channels(tape, x, axis);
    expect_identical(y.value(), numbered(*memory, 4, 2, 1, 2 * axis.rank()), "y");
    tape.backward(y, nullptr, {}, numbered(*memory, 4, 2, 5, 2 * axis.rank()));
    expect_identical(tape.gradient(x), numbered(*memory, 4, 6, 5), "dx");
  });
}

TEST(CollectiveOps, RecordNothingOnAnAxisOfOne) {
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  Tape tape(*backend);
  const Var x = tape.leaf(filled(*memory, 7));
  EXPECT_EQ(copy_to(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(reduce_from(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(scatter_channels_from(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(own_channels(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(gather_channels(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(tape.steps(), 0U);
}

}  // namespace
}  // namespace bireme::test
