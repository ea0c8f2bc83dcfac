#include "launch/pair_diagnostics.h"

#include <gtest/gtest.h>

#include "core/io/hdf5.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

std::vector<Answer> pairs_of(double chosen, double rejected) {
  return {{.log_probability = 2 * chosen, .tokens = 2}, {.log_probability = 4 * rejected, .tokens = 4}};
}

TEST(PairDiagnostics, KeepStepsBeforeAResumeAndForgetThoseAfterIt) {
  const TemporaryFolder run;
  PairDiagnostics first;
  first.write(run.path(), 1, pairs_of(-1, -2), {0.25});
  first.write(run.path(), 3, pairs_of(-3, -4), {0.5});
  first.write(run.path(), 5, pairs_of(-9, -9), {0.5});
  PairDiagnostics resumed;
  resumed.write(run.path(), 3, pairs_of(-5, -6), {0.75});
  const Hdf5Reader file(run.path() / "diagnostics.h5");
  const auto memory = make_host_memory();
  const Tensor steps = file.read("step", *memory);
  ASSERT_EQ(steps.elements(), 2);
  EXPECT_EQ(steps.data<std::int64_t>()[0], 1);
  EXPECT_EQ(steps.data<std::int64_t>()[1], 3);
  EXPECT_EQ(file.read("chosen_average", *memory).data<double>()[0], -1);
  EXPECT_EQ(file.read("chosen_average", *memory).data<double>()[1], -5);
  EXPECT_EQ(file.read("rejected_average", *memory).data<double>()[1], -6);
  EXPECT_EQ(file.read("rejected_tokens", *memory).data<double>()[1], 4);
  EXPECT_EQ(file.read("delta", *memory).data<double>()[1], 0.75);
}

}  // namespace
}  // namespace bireme::test
