#include <gtest/gtest.h>

#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
#include "distributed/gradient_sync.h"
#include "distributed/mesh.h"
#include "tests/support/expect.h"
#include "tests/support/llama.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

constexpr double kLearningRate = 1e-2, kDecay = 0.1, kClip = 1;

/// The reference decays every parameter; here norms are left out. Decoupled decay commutes with the step, so
/// theirs is done beforehand.
void decay_norms(ParameterSet& parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].decays()) continue;
    for (float& value : parameters[i].value().values<float>())
      value *= static_cast<float>(1 - kLearningRate * kDecay);
  }
}

void follow_golden_training(Communicator& world, int tensor_degree, bool recompute) {
  const Golden golden("llama/training.h5");
  const Mesh mesh(world, tensor_degree);
  LlamaFixture f(golden, DType::f32, &mesh.tensor());
  ParameterSet& parameters = f.model->parameters();
  AdamWOptimizer optimizer(*f.backend, parameters, {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8}, 0,
                           parameters.flat_values().elements());
  GradientSync sync(parameters, mesh.data(), 4096);
  const Tensor batches = golden.tensor("inputs/tokens");  // [5, 4, 12]
  for (std::int64_t step = 0; step < 5; ++step) {
    const std::int64_t own = 4 / mesh.data().size();
    const Tensor batch = batches.slice(step, step + 1).reshape({4, 12});
    const Tensor tokens = f.tokens(batch.slice(mesh.data().rank() * own, (mesh.data().rank() + 1) * own));
    parameters.begin_gradients();
    Tape tape(*f.backend);
    const Var hidden =
        f.model->hidden(tape, {.tokens = tokens, .starts = {}}, {.type = DType::f32, .recompute = recompute});
    const TokenLoss loss = f.model->head().loss(tape, hidden, f.next(tokens), {.count = 4 * 11});
    sync.begin(true);
    tape.backward(loss.loss, &parameters, [&](Parameter& parameter) { sync.ready(parameter); });
    sync.wait();
    const ClippedGradients clipped =
        clip_gradients(*f.backend, parameters, {.type = ClipType::global, .limit = kClip},
                       [&](const Tensor& squares) { mesh.tensor().all_reduce(squares, Reduce::sum).wait(); });
    const std::string at = "steps/" + std::to_string(step);
    const double mean = mesh.data().all_reduce_value(double{loss.loss.value().data<float>()[0]}, Reduce::sum);
    EXPECT_NEAR(mean, golden.tensor(at + "/loss").data<double>()[0], 1e-5) << at;
    const double norm = golden.tensor(at + "/grad_norm").data<double>()[0];
    EXPECT_NEAR(clipped.norm, norm, 1e-5 * norm) << at;
    decay_norms(parameters);
    optimizer.step(kLearningRate, kDecay, clipped.scales);
  }
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
