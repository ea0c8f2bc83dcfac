#include <gtest/gtest.h>

#include "tests/support/expect.h"
#include "tests/support/golden_training.h"
#include "tests/support/llama.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

constexpr double kLearningRate = 1e-2, kDecay = 0.1;

/// The reference decays every parameter; here norms are left out. Decoupled decay commutes with the step, so
/// theirs is done beforehand.
void decay_norms(ParameterSet& parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].decays()) continue;
    const Tensor decayed = clone(*make_host_memory(), parameters[i].value());
    for (float& value : decayed.values<float>()) value *= static_cast<float>(1 - kLearningRate * kDecay);
    copy(decayed, parameters[i].value());
  }
}

void follow_golden_training(Communicator& world, int tensor_degree, bool recompute) {
  const Golden golden("llama/training.h5");
  const Mesh mesh(world, tensor_degree);
  LlamaFixture f(golden, DType::f32, &mesh.tensor());
  ParameterSet& parameters = f.model->parameters();
  follow(golden, {.backend = *f.backend,
                  .model = *f.model,
                  .mesh = mesh,
                  .adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8},
                  .weight_decay = kDecay,
                  .recompute = recompute,
                  .norm_relative = 1e-5,
                  .rates = std::vector<double>(5, kLearningRate),
                  .before_update = [&] { decay_norms(parameters); }});
  for_golden_tensors(golden, "final_weights", f, false,
                     [](const Tensor& mine, const Tensor& expected, const std::string& name) {
                       expect_close(mine, expected, 0, 2e-5, name);  // the fixture's own, absolute
                     });
}

TEST(LlamaTraining, FollowsTheReferenceOnOneRank) {
  const auto alone = make_single_process();
  follow_golden_training(*alone, 1, false);
  follow_golden_training(*alone, 1, true);
}
TEST(LlamaTraining, FollowsTheReferenceOnTwoDataRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(world, 1, false); });
}
TEST(LlamaTraining, FollowsTheReferenceOnTwoTensorRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(world, 2, false); });
}
TEST(LlamaTraining, FollowsTheReferenceOnAMeshOfTwoByTwo) {
  run_on_ranks(4, [](Communicator& world) { follow_golden_training(world, 2, true); });
}

}  // namespace
}  // namespace bireme::test
