#include "models/dino_head.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/dino_network.h"
#include "tests/support/expect_error.h"
#include "tests/support/vision.h"

namespace bireme::test {
namespace {

struct HeadFixture {
  HeadFixture(const DinoHeadOptions& options, DType master) : head(options, parameters, "", *single) {
    parameters.build(*memory, {.master = master, .gradients = true, .bf16_copy = false});
    parameters.initialize(1);
    head.build(*memory);
    parameters.begin_gradients();
  }
  Tensor constant(const Tensor& values) const {
    return convert(*memory, values, parameters.flat_values().dtype());
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  std::unique_ptr<Communicator> single = make_single_process();
  ParameterSet parameters;
  DinoHead head;
  Tape tape{*backend};
};

DinoHeadOptions golden_head_options(const Golden& golden) {
  const auto integer = [&](const char* name) {
    return static_cast<std::int64_t>(golden.number("config", name));
  };
  return {.in_dim = integer("in_dim"),
          .layers = static_cast<int>(integer("nlayers")),
          .hidden = integer("hidden_dim"),
          .bottleneck = integer("bottleneck_dim"),
          .out_dim = integer("out_dim"),
          .batch_norm = integer("use_bn") != 0,
          .norm_last_layer = integer("norm_last_layer") != 0};
}

/// In fp32 the fixtures' own tolerance; in fp64, in which they were made, only the order of sums differs.
class DinoHeadGolden : public testing::TestWithParam<DType> {
 protected:
  void check(const std::string& file, double fp32_tolerance, int gradients) {
    const double t = GetParam() == DType::f64 ? 1e-10 : fp32_tolerance;
    const Golden golden(file);
    HeadFixture fixture(golden_head_options(golden), GetParam());
    load_golden_weights(golden, fixture.parameters);
    for (const DinoHead::Buffer& buffer : fixture.head.buffers())
      copy(golden.tensor("weights/" + buffer.name), buffer.value);
    const Var features = fixture.tape.leaf(fixture.constant(golden.tensor("inputs/features")));
    const DinoHead::Stages stages = fixture.head.stages(fixture.tape, features);
    expect_close(stages.mlp.value(), golden.tensor("outputs/mlp"), t, 0, "mlp");
    expect_close(stages.normalized.value(), golden.tensor("outputs/normalized"), t, 0, "normalized");
    expect_close(stages.weight.value(), golden.tensor("outputs/effective_weight"), t, 0, "effective weight");
    expect_close(stages.logits.value(), golden.tensor("outputs/logits"), t, 0, "logits");
    fixture.tape.backward(stages.logits, &fixture.parameters, {},
                          fixture.constant(golden.tensor("inputs/cotangent")));
    expect_close(fixture.tape.gradient(features), golden.tensor("grads/features"), t, 0,
                 "gradient of the features");
    // A bias before batch norm is cancelled by the mean: its gradient is zero but for rounding, hence an
    // absolute tolerance as well, where the other gradients are of the order of one.
    expect_golden_gradients(golden, "grads", fixture.parameters, t, gradients, t);
    for (const DinoHead::Buffer& buffer : fixture.head.buffers())  // kept in fp32 whatever the type
      expect_close(buffer.value, golden.tensor("buffers_after/" + buffer.name), fp32_tolerance, 0,
                   buffer.name);
  }
};

INSTANTIATE_TEST_SUITE_P(Types, DinoHeadGolden, testing::Values(DType::f32, DType::f64),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST_P(DinoHeadGolden, LinearHeadWithFixedLengths) { check("vision/head.h5", 1e-5, 7); }
TEST_P(DinoHeadGolden, BatchNormAndTrainedLengths) { check("vision/head_bn_free_norm.h5", 2e-5, 12); }

constexpr DinoHeadOptions kSmall{.in_dim = 8, .layers = 3, .hidden = 16, .bottleneck = 4, .out_dim = 12};

bool trains(HeadFixture& fixture, const char* name) { return fixture.parameters.find(name)->trainable(); }

TEST(DinoHead, FreezesPrototypesAndTheirLengths) {
  HeadFixture fixed(kSmall, DType::f32);
  EXPECT_FALSE(trains(fixed, "last_layer.weight_g"));
  EXPECT_TRUE(trains(fixed, "last_layer.weight_v"));
  DinoHeadOptions free_options = kSmall;
  free_options.norm_last_layer = false;
  HeadFixture free(free_options, DType::f32);
  EXPECT_TRUE(trains(free, "last_layer.weight_g"));
  for (HeadFixture* fixture : {&fixed, &free}) {
    fixture->head.freeze_last_layer(true);
    EXPECT_FALSE(trains(*fixture, "last_layer.weight_g"));
    EXPECT_FALSE(trains(*fixture, "last_layer.weight_v"));
    EXPECT_TRUE(trains(*fixture, "mlp.4.weight"));
    fixture->head.freeze_last_layer(false);
  }
  EXPECT_FALSE(trains(fixed, "last_layer.weight_g"));  // released, but still of length one by choice
  EXPECT_TRUE(trains(free, "last_layer.weight_g"));
}

TEST(DinoHead, NamesLayersAsPublished) {
  const auto names = [](int layers, bool batch_norm) {
    DinoHeadOptions options = kSmall;
    options.layers = layers;
    options.batch_norm = batch_norm;
    HeadFixture fixture(options, DType::f32);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < fixture.parameters.size(); ++i) names.push_back(fixture.parameters[i].name());
    return names;
  };
  const std::vector<std::string> last = {"last_layer.weight_g", "last_layer.weight_v"};
  std::vector<std::string> one = {"mlp.weight", "mlp.bias"},
                           two = {"mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"};
  std::vector<std::string> normed = {"mlp.0.weight", "mlp.0.bias",   "mlp.1.weight",
                                     "mlp.1.bias",   "mlp.3.weight", "mlp.3.bias"};
  for (auto* expected : {&one, &two, &normed}) expected->insert(expected->end(), last.begin(), last.end());
  EXPECT_EQ(names(1, false), one);
  EXPECT_EQ(names(2, false), two);
  EXPECT_EQ(names(2, true), normed);
}

TEST(DinoHead, LogitsOfFreshHeadsAreCosines) {
  HeadFixture fixture(kSmall, DType::f32);
  const Var logits = fixture.head.logits(fixture.tape, Var(random_tensor(*fixture.memory, {5, 8}, 1)));
  ASSERT_EQ(logits.shape(), (Shape{5, 12}));
  for (const float value : logits.value().values<float>()) EXPECT_LE(std::abs(value), 1 + 1e-6);
}

TEST(DinoHead, RefusesWhatCannotBe) {
  const auto refusal = [](auto change) {
    DinoHeadOptions options = kSmall;
    change(options);
    return error_of(ErrorKind::usage, [&] { options.validate(); });
  };
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.out_dim = 1; }), {"model.prototypes is 1", "2 or more"}));
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.bottleneck = 0; }), {"model.head_bottleneck is 0"}));
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.layers = 0; }), {"model.head_layers is 0"}));
}

TEST(DinoNetwork, LogitsAreThoseOfAllCropsTogether) {
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  DinoNetworkOptions options;
  options.backbone.embed_dim = 16;
  options.backbone.depth = 2;
  options.backbone.heads = 2;
  options.backbone.patch = 4;
  options.backbone.image_size = 8;
  options.head = kSmall;  // its in_dim is replaced
  DinoNetwork network(options, *single);
  network.build(*memory, {.master = DType::f64, .gradients = false, .bf16_copy = false});
  network.parameters().initialize(4);
  const std::vector<ImageGroup> groups = {
      {.pixels = random_tensor(*memory, {4, 3, 8, 8}, 1, DType::f64), .crops = 2, .side = 8},
      {.pixels = random_tensor(*memory, {2, 3, 4, 4}, 2, DType::f64), .crops = 1, .side = 4}};
  Tape tape(*backend, Tape::Mode::inference);
  const VisionForward how{.type = DType::f64, .keep = {}, .recompute = false};
  const Tensor logits = network.forward(tape, groups, how).value();
  ASSERT_EQ(logits.shape(), (Shape{6, 12}));
  const Tensor globals = network.forward(tape, std::span(groups).first(1), how).value();
  expect_close(logits.slice(0, 4), globals, 1e-10, 0, "globals");
  EXPECT_EQ(network.head().options().in_dim, 16);
  const double head = 2.0 * (16 * 16 + 16 * 16 + 16 * 4 + 4 * 12);
  EXPECT_DOUBLE_EQ(network.flops(groups),
                   4 * (network.backbone().flops(8, 8) + head) + 2 * (network.backbone().flops(4, 4) + head));
}

}  // namespace
}  // namespace bireme::test
