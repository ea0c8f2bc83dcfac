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

TEST(CollectiveOps, RecordNothingOnAnAxisOfOne) {
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  Tape tape(*backend);
  const Var x = tape.leaf(filled(*memory, 7));
  EXPECT_EQ(copy_to(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(reduce_from(tape, x, *single).value().raw(), x.value().raw());
  EXPECT_EQ(tape.steps(), 0U);
}

}  // namespace
}  // namespace bireme::test
