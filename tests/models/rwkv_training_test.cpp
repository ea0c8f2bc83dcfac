#include <gtest/gtest.h>

#include "tests/support/golden_training.h"
#include "tests/support/ranks.h"
#include "tests/support/rwkv.h"

namespace bireme::test {
namespace {

RwkvOptions options_of(const Golden& golden) {
  RwkvOptions options = golden_rwkv_options(golden);
  options.time_mix_rate = golden.number("config", "scale_time_mix");
  options.time_decay_rate = golden.number("config", "scale_time_decay");
  options.time_first_rate = golden.number("config", "scale_time_first");
  return options;
}

void follow_golden_training(const std::string& file, Communicator& world, int tensor_degree) {
  const Golden golden("rwkv/" + file + ".h5");
  const auto setting = [&](const char* name) { return golden.number("config", name); };
  const Mesh mesh(world, tensor_degree);
  RwkvFixture f(options_of(golden), DType::f32, &mesh.tensor());
  load_golden_weights(golden, f.model.parameters());
  follow(golden,
         {.backend = *f.backend,
          .model = f.model,
          .mesh = mesh,
          .adamw = {.beta1 = setting("beta1"), .beta2 = setting("beta2"), .epsilon = setting("epsilon")},
          .weight_decay = setting("weight_decay"),
          .clip = setting("clip_norm"),
          .l2_wrap = setting("l2wrap") != 0 ? 1e-4 : 0,
          .loss_absolute = 0,
          .loss_relative = 1e-5});
  for (std::size_t i = 0; i < f.model.parameters().size(); ++i) {
    const Parameter& p = f.model.parameters()[i];
    const Tensor whole = golden.tensor("final_weights/" + p.name()).reshape(p.whole_shape());
    const Tensor part(*f.memory, p.shape(), whole.dtype());
    copy_part(whole, part, p.partition());
    expect_close(p.value(), part, 1e-4, 0, p.name());
  }
}

class RwkvTrainingTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, RwkvTrainingTest, testing::Values("train_neo", "train_adamw"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(RwkvTrainingTest, FollowsTheReference) {
  const auto alone = make_single_process();
  follow_golden_training(GetParam(), *alone, 1);
}

TEST_P(RwkvTrainingTest, FollowsTheReferenceOverDataRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(GetParam(), world, 1); });
}

TEST_P(RwkvTrainingTest, FollowsTheReferenceOverTensorRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_golden_training(GetParam(), world, 2); });
}

}  // namespace
}  // namespace bireme::test
