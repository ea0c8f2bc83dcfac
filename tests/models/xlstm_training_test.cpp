#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/golden_training.h"
#include "tests/support/ranks.h"
#include "tests/support/xlstm.h"

namespace bireme::test {
namespace {

/// Their gradients vanish by invariance; Adam turns what rounding leaves of them into steps.
bool is_noise(const std::string& name) {
  return name.find("igate.bias") != std::string::npos ||
         name.find("igate_preact.bias") != std::string::npos || name.ends_with("slstm_cell._bias_");
}

void follow_golden_training(const std::string& file, Communicator& world, int tensor_degree, bool recompute) {
  const Golden golden("xlstm/" + file + ".h5");
  const Mesh mesh(world, tensor_degree);
  XlstmFixture f(golden, DType::f32, &mesh.tensor());
  ParameterSet& parameters = f.model.parameters();
  follow(golden, {.backend = *f.backend,
                  .model = f.model,
                  .mesh = mesh,
                  .adamw = {.beta1 = golden.number("config", "beta1"),
                            .beta2 = golden.number("config", "beta2"),
                            .epsilon = golden.number("config", "epsilon")},
                  .recompute = recompute});
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (!is_noise(parameters[i].name())) {
      const Tensor expected = golden_part(golden, "final_weights", parameters[i], DType::f64);
      // Of an sLSTM's biases the first quarter belongs to its input gates.
      const bool is_bias = parameters[i].name().ends_with("slstm_cell._bias_");
      const std::int64_t rows = expected.shape()[0], first = is_bias ? rows / 4 : 0;
      expect_close(parameters[i].value().slice(first, rows), expected.slice(first, rows), 1e-4, 0,
                   parameters[i].name());
    }
}

void follow_both(Communicator& world, int tensor_degree, bool recompute) {
  for (const char* file : {"train_msm", "large_train"})
    follow_golden_training(file, world, tensor_degree, recompute);
}

TEST(XlstmTraining, FollowsTheReferenceOnOneRank) {
  const auto alone = make_single_process();
  follow_both(*alone, 1, false);
  follow_both(*alone, 1, true);
}
TEST(XlstmTraining, FollowsTheReferenceOnTwoDataRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_both(world, 1, false); });
}
TEST(XlstmTraining, FollowsTheReferenceOnTwoTensorRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_both(world, 2, false); });
}
TEST(XlstmTraining, FollowsTheReferenceOnAMeshOfTwoByTwo) {
  run_on_ranks(4, [](Communicator& world) { follow_both(world, 2, true); });
}

}  // namespace
}  // namespace bireme::test
