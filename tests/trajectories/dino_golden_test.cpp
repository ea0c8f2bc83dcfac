#include <gtest/gtest.h>

#include <map>

#include "launch/dino_task.h"
#include "launch/trainer.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/ranks.h"
#include "tests/support/vision.h"

namespace bireme::test {
namespace {

constexpr std::int64_t kBatch = 4, kSteps = 8, kStepsRun = 5, kStepsPerEpoch = 2;
constexpr double kTolerance = 2e-5;  // the fixture's own, for quantities of a step

Configuration golden_configuration(int tensor_degree, int zero) {
  Configuration c;
  c.model.embed_dim = 24;
  c.model.depth = c.model.heads = 2;
  c.model.patch_size = 4;
  c.model.image_size = 16;
  c.model.channels = 3;
  c.model.head_hidden = 48;
  c.model.head_bottleneck = 16;
  c.model.prototypes = 64;
  c.data.batch_size = kBatch;
  c.objective.student_temperature = 0.1;
  c.objective.teacher_momentum = 0.9;
  c.objective.freeze_last_layer_steps = kStepsPerEpoch;
  c.optimizer.learning_rate = 0.05 * kBatch / 256;
  c.optimizer.minimum_learning_rate = 1e-5;
  c.optimizer.weight_decay_end = 0.4;
  c.optimizer.clip_norm = 0.3;
  c.schedule.warmup_steps = kStepsPerEpoch;
  c.parallel.tensor = tensor_degree;
  c.parallel.zero = zero;
  c.parallel.bucket_bytes = 4096;  // several buckets
  c.run.device = test_device();
  c.run.threads = 1;
  c.run.steps = kSteps;
  c.run.timeout_seconds = 0;
  return c;
}

/// This data rank's images of each crop.
Tensor share_of(const Tensor& crops, const Communicator& data) {
  const std::int64_t images = kBatch / data.size(), count = crops.shape()[0] / kBatch;
  Shape shape = crops.shape();
  shape[0] = count * images;
  Tensor own(*make_host_memory(), shape, DType::f32);
  for (std::int64_t crop = 0; crop < count; ++crop) {
    const std::int64_t first = crop * kBatch + data.rank() * images;
    copy(crops.slice(first, first + images), own.slice(crop * images, (crop + 1) * images));
  }
  return own;
}

ImageBatch golden_batch(const Golden& golden, std::int64_t step, const Communicator& data) {
  const std::string path = "inputs/" + std::to_string(step);
  ImageBatch batch;
  for (std::int64_t i = 0; i < kBatch / data.size(); ++i)
    batch.records.push_back(data.rank() * kBatch / data.size() + i);
  batch.global_count = kBatch;
  batch.groups = {{share_of(golden.tensor(path + "/globals"), data), 2, 16},
                  {share_of(golden.tensor(path + "/locals"), data), 2, 8}};
  return batch;
}

/// The part of a golden tensor that this rank holds.
Tensor local_part(const Tensor& whole, const Parameter& parameter) {
  const Tensor shaped = whole.reshape(parameter.whole_shape());
  Tensor local(*make_host_memory(), parameter.shape(), whole.dtype());
  copy_part(shaped, local, parameter.partition());
  return local;
}

/// The key third of a qkv bias has no gradient but rounding noise, which Adam blows up: zero on both sides.
void forget_key_bias(const Tensor& bias) {
  const std::int64_t third = bias.elements() / 3;
  fill(bias.view(third, {third}), 0);
}

void expect_golden_parameters(const Golden& golden, const std::string& group,
                              const ParameterSet& parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const Tensor expected = local_part(golden.tensor(group + "/" + parameter.name()), parameter);
    const Tensor actual = clone(*make_host_memory(), parameter.value());
    if (parameter.name().ends_with("attn.qkv.bias")) {
      forget_key_bias(expected);
      forget_key_bias(actual);
    }
    expect_close(actual, expected, 0, 1e-5, group + "/" + parameter.name());  // the fixture's own, absolute
  }
}

void follow_golden_training(Communicator& world, int tensor_degree, int zero) {
  const Golden golden("vision/train.h5");
  Configuration configuration = golden_configuration(tensor_degree, zero);
  const Context context = make_context(configuration, world);
  DinoTask task(configuration, context, TaskData::made_up);
  Trainer trainer(configuration, context, task.objective(), kSteps);
  load_golden_weights(golden, task.student().parameters());
  task.teacher().parameters().copy_from(task.student().parameters());
  const Tensor temperatures = golden.tensor("schedule/teacher_temp");
  for (std::int64_t step = 0; step < kStepsRun; ++step) {
    // The official temperature moves at epoch borders.
    configuration.objective.teacher_temperature_start = configuration.objective.teacher_temperature =
        temperatures.data<double>()[step / kStepsPerEpoch];
    const StepReport report =
        trainer.step(step, [&] { return golden_batch(golden, step, context.mesh->data()); });
    const std::string path = "steps/" + std::to_string(step);
    const auto number = [&](const std::string& name) {
      return golden.tensor(path + "/" + name).data<double>()[0];
    };
    EXPECT_FALSE(report.skipped);
    EXPECT_NEAR(report.learning_rate, golden.tensor("schedule/lr").data<double>()[step], 1e-12);
    EXPECT_NEAR(report.loss, number("loss"), kTolerance * number("loss")) << path;
    std::map<std::string, double> terms;
    for (const auto& [name, value] : task.objective().terms()) terms[name] = value;
    EXPECT_NEAR(terms.at("teacher_entropy"), number("teacher_entropy"),
                kTolerance * number("teacher_entropy"));
    EXPECT_NEAR(terms.at("marginal_entropy"), number("teacher_marginal_entropy"),
                kTolerance * number("teacher_marginal_entropy"));
    EXPECT_NEAR(terms.at("kl"), number("kl"), kTolerance * number("loss"));
    const Tensor center = golden.tensor(path + "/center").reshape({64});
    const std::int64_t columns = 64 / tensor_degree, first = context.mesh->tensor().rank() * columns;
    expect_close(task.objective().center(), center.slice(first, first + columns), kTolerance, 0,
                 path + "/center");
  }
  expect_golden_parameters(golden, "final_weights", task.student().parameters());
  expect_golden_parameters(golden, "final_teacher", task.teacher().parameters());
  const Parameter* prototypes = task.student().parameters().find("head.last_layer.weight_v");
  EXPECT_EQ(trainer.optimizer().steps()[static_cast<std::size_t>(prototypes->index())],
            kStepsRun - kStepsPerEpoch);
}

TEST(DinoTraining, FollowsTheReferenceOnOneRank) {
  const auto alone = make_single_process();
  follow_golden_training(*alone, 1, 0);
}
TEST(DinoTraining, FollowsTheReferenceOnTwoDataRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(world, 1, 0); });
}
TEST(DinoTraining, FollowsTheReferenceOnTwoTensorRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(world, 2, 0); });
}
TEST(DinoTraining, FollowsTheReferenceOnAMeshOfTwoByTwoWithShardedMoments) {
  run_on_ranks(4, [](Communicator& world) { follow_golden_training(world, 2, 1); });
}

}  // namespace
}  // namespace bireme::test
