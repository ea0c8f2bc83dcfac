#include "models/vision_transformer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/vision.h"

namespace bireme::test {
namespace {

/// Golden values were computed in fp64: there only the order of sums differs. In fp32 the tolerances are
/// those of the fixtures' own table, ten times the distance between the reference's fp64 and fp32 runs.
class VisionTransformerGolden : public testing::TestWithParam<DType> {
 protected:
  double tolerance(double fp32) const { return GetParam() == DType::f64 ? 1e-10 : fp32; }
};

INSTANTIATE_TEST_SUITE_P(Types, VisionTransformerGolden, testing::Values(DType::f32, DType::f64),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST_P(VisionTransformerGolden, EveryStageAndGradientOfOneSize) {
  const Golden golden("vision/vit_16px.h5");
  VisionFixture vit(golden_vision_options(golden), GetParam());
  load_golden_weights(golden, vit.parameters);
  const Var images = vit.tape->leaf(vit.constant(golden.tensor("inputs/images")));

  const std::vector<Var> residuals = vit.model.residuals(*vit.tape, {images}, vit.how());
  ASSERT_EQ(residuals.size(), 3U);
  const double t = tolerance(1e-5);
  expect_close(residuals[0].value(), golden.tensor("outputs/prepared_tokens"), t, 0, "prepared tokens");
  expect_close(residuals[1].value(), golden.tensor("outputs/block_0"), t, 0, "block 0");
  expect_close(residuals[2].value(), golden.tensor("outputs/block_1"), t, 0, "block 1");
  expect_close(vit.model.positions(*vit.tape, 16, 16).value(), golden.tensor("outputs/positions"), t, 0,
               "positions");
  expect_close(vit.model.attention(*vit.backend, images.value(), GetParam()),
               golden.tensor("outputs/attention_1"), tolerance(1e-5) + (GetParam() == DType::f64 ? 1e-7 : 0),
               0, "attention");  // the weights come in fp32

  vit.start();
  const Var leaf = vit.tape->leaf(images.value());
  const Var features = vit.model.features(*vit.tape, {leaf}, vit.how());
  expect_close(features.value(), golden.tensor("outputs/class_token"), t, 0, "class token");

  vit.start();
  const Var pixels = vit.tape->leaf(images.value());
  const Var tokens = vit.model.tokens(*vit.tape, {pixels}, vit.how());
  expect_close(tokens.value(), golden.tensor("outputs/tokens"), t, 0, "tokens");
  vit.backward(tokens, golden.tensor("inputs/cotangent").reshape(tokens.shape()));
  expect_close(vit.tape->gradient(pixels), golden.tensor("grads/images"), t, 0, "gradient of the images");
  expect_golden_gradients(golden, "grads", vit.parameters, t, static_cast<int>(vit.parameters.size()));
}

TEST_P(VisionTransformerGolden, SevenSizesOfPictures) {
  const Golden golden("vision/vit_interpolated.h5");
  VisionFixture vit(golden_vision_options(golden), GetParam());
  load_golden_weights(golden, vit.parameters);
  const double t = tolerance(2e-5);
  const std::vector<std::string> cases = golden.members("inputs");
  ASSERT_EQ(cases.size(), 7U);
  for (const std::string& size : cases) {
    SCOPED_TRACE(size);
    const Tensor images = vit.constant(golden.tensor("inputs/" + size + "/images"));
    const std::string outputs = "outputs/" + size + "/";
    expect_close(vit.model.attention(*vit.backend, images, GetParam()),
                 golden.tensor(outputs + "attention_2"), t + (GetParam() == DType::f64 ? 1e-7 : 0), 0,
                 "attention");
    vit.start();
    expect_close(vit.model.positions(*vit.tape, images.shape()[2], images.shape()[3]).value(),
                 golden.tensor(outputs + "positions"), t, 0, "positions");
    expect_close(vit.model.features(*vit.tape, {Var(images)}, vit.how()).value(),
                 golden.tensor(outputs + "class_token"), t, 0, "class token");
    vit.start();
    const Var tokens = vit.model.tokens(*vit.tape, {Var(images)}, vit.how());
    expect_close(tokens.value(), golden.tensor(outputs + "tokens"), t, 0, "tokens");
    vit.backward(tokens, golden.tensor("inputs/" + size + "/cotangent").reshape(tokens.shape()));
    expect_golden_gradients(golden, "grads/" + size, vit.parameters, t, 6);
  }
}

TEST_P(VisionTransformerGolden, StochasticDepthWithGivenFlags) {
  const Golden golden("vision/vit_droppath.h5");
  VisionTransformerOptions options = golden_vision_options(golden);
  options.drop_path = golden.number("config", "drop_path_rate");
  VisionFixture vit(options, GetParam());
  load_golden_weights(golden, vit.parameters);
  const Tensor keep = golden.tensor("inputs/keep");  // [block, branch, image]
  VisionForward how = vit.how();
  how.keep = [&](int block, int branch, std::int64_t image) {
    return keep.data<std::uint8_t>()[(block * 2 + branch) * keep.shape()[2] + image] != 0;
  };
  const double t = tolerance(1e-5);
  const Var images(vit.constant(golden.tensor("inputs/images")));
  const std::vector<Var> residuals = vit.model.residuals(*vit.tape, {images}, how);
  for (int i = 0; i < options.depth; ++i)
    expect_close(residuals[static_cast<std::size_t>(i) + 1].value(),
                 golden.tensor("outputs/block_" + std::to_string(i)), t, 0, "block " + std::to_string(i));
  for (const bool recompute : {false, true}) {
    SCOPED_TRACE(recompute ? "blocks run again" : "blocks kept");
    vit.start();
    how.recompute = recompute;
    const Var tokens = vit.model.tokens(*vit.tape, {images}, how);
    expect_close(tokens.value(), golden.tensor("outputs/tokens"), t, 0, "tokens");
    vit.backward(tokens, golden.tensor("inputs/cotangent").reshape(tokens.shape()));
    expect_golden_gradients(golden, "grads", vit.parameters, t, static_cast<int>(vit.parameters.size()));
  }
}

VisionTransformerOptions small_options() {
  VisionTransformerOptions options;
  options.embed_dim = 32;
  options.depth = 3;
  options.heads = 4;
  options.patch = 4;
  options.image_size = 16;
  options.drop_path = 0.5;
  options.init_std = 0;
  return options;
}

/// Two globals and three locals of two pictures.
std::vector<Var> two_sizes(Memory& memory, DType type) {
  return {Var(random_tensor(memory, {4, 3, 16, 16}, 1, type)),
          Var(random_tensor(memory, {6, 3, 8, 8}, 2, type))};
}

KeepBranch some_dropped() {
  return [](int block, int branch, std::int64_t image) { return (block * 5 + branch * 3 + image) % 3 != 0; };
}

std::vector<Tensor> gradients_of(const ParameterSet& parameters, Memory& memory) {
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    gradients.push_back(clone(memory, parameters[i].gradient()));
  return gradients;
}

void expect_same_gradients(const ParameterSet& parameters, const std::vector<Tensor>& expected,
                           double tolerance) {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    expect_close(parameters[i].gradient(), expected[i], tolerance, 1e-12, parameters[i].name());
}

// In fp64 two orders of the same sums agree to about 1e-13; 1e-10 leaves room and is far from any real
// difference.
constexpr double kSameMathematics = 1e-10;

TEST(VisionTransformer, FeaturesAreTheClassTokensOfAllTokens) {
  VisionFixture vit(small_options(), DType::f64);
  const std::vector<Var> images = two_sizes(*vit.memory, DType::f64);
  VisionForward how = vit.how();
  how.keep = some_dropped();
  const Var tokens = vit.model.tokens(*vit.tape, images, how);
  ASSERT_EQ(tokens.shape(), (Shape{4 * 17 + 6 * 5, 32}));
  std::vector<std::int64_t> class_rows;
  for (int i = 0; i < 4; ++i) class_rows.push_back(17 * i);
  for (int i = 0; i < 6; ++i) class_rows.push_back(4 * 17 + 5 * i);
  const Var expected = select_rows(*vit.tape, tokens, class_rows);
  const Tensor cotangent = random_tensor(*vit.memory, {10, 32}, 3);
  vit.backward(expected, cotangent);
  const std::vector<Tensor> gradients = gradients_of(vit.parameters, *vit.memory);

  for (const bool recompute : {false, true}) {
    SCOPED_TRACE(recompute ? "blocks run again" : "blocks kept");
    how.recompute = recompute;
    vit.start();
    const Var features = vit.model.features(*vit.tape, images, how);
    expect_close(features.value(), expected.value(), kSameMathematics, 0, "features");
    vit.backward(features, cotangent);
    expect_same_gradients(vit.parameters, gradients, kSameMathematics);
  }
}

TEST(VisionTransformer, PackingSizesChangesNothing) {
  VisionFixture vit(small_options(), DType::f64);
  const std::vector<Var> images = two_sizes(*vit.memory, DType::f64);
  const Tensor together = vit.model.features(*vit.tape, images, vit.how()).value();
  const Tensor globals = vit.model.features(*vit.tape, {images[0]}, vit.how()).value();
  const Tensor locals = vit.model.features(*vit.tape, {images[1]}, vit.how()).value();
  expect_close(together.slice(0, 4), globals, kSameMathematics, 0, "globals");
  expect_close(together.slice(4, 10), locals, kSameMathematics, 0, "locals");
}

TEST(VisionTransformer, RecomputeKeepsFewerSteps) {
  VisionFixture vit(small_options(), DType::f32);
  const std::vector<Var> images = two_sizes(*vit.memory, DType::f32);
  VisionForward how = vit.how();
  vit.model.features(*vit.tape, images, how);
  const std::size_t kept = vit.tape->steps();
  vit.start();
  how.recompute = true;
  vit.model.features(*vit.tape, images, how);
  EXPECT_LT(vit.tape->steps(), kept);
}

TEST(VisionTransformer, TeachersKeepNoSteps) {
  VisionFixture vit(small_options(), DType::f32);
  Tape tape(*vit.backend, Tape::Mode::inference);
  const Var features = vit.model.features(tape, two_sizes(*vit.memory, DType::f32), vit.how());
  EXPECT_EQ(tape.steps(), 0U);
  expect_identical(features.value(),
                   vit.model.features(*vit.tape, two_sizes(*vit.memory, DType::f32), vit.how()).value());
}

TEST(VisionTransformer, Bf16StaysNearFp32) {
  VisionFixture vit(small_options(), DType::f32);
  if (!vit.backend->has_fast_bf16()) GTEST_SKIP() << "this CPU has no bf16 instructions";
  const std::vector<Var> images = two_sizes(*vit.memory, DType::f32);
  const Tensor exact = vit.model.features(*vit.tape, images, vit.how()).value();
  VisionForward how = vit.how();
  how.type = DType::bf16;
  const Var rounded = vit.model.features(*vit.tape, images, how);
  EXPECT_EQ(rounded.dtype(), DType::bf16);
  // 8 bits of mantissa are 0.4 % a rounding; three blocks of six roundings each add up to a few of them.
  expect_close(rounded.value(), exact, 0.03, 0, "features");
}

TEST(VisionTransformer, IntermediateTokensCarryTheFinalNorm) {
  VisionFixture vit(small_options(), DType::f64);
  const std::vector<Var> images = two_sizes(*vit.memory, DType::f64);
  const std::vector<Var> layers = vit.model.intermediate(*vit.tape, images, 2, vit.how());
  ASSERT_EQ(layers.size(), 2U);
  expect_close(layers[1].value(), vit.model.tokens(*vit.tape, images, vit.how()).value(), kSameMathematics, 0,
               "last");
  const Var before = vit.model.residuals(*vit.tape, images, vit.how())[2];
  const Var normed = layer_norm(*vit.tape, before, *vit.parameters.find("norm.weight"),
                                *vit.parameters.find("norm.bias"), 1e-6f, DType::f64);
  expect_close(layers[0].value(), normed.value(), kSameMathematics, 0, "last but one");
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { vit.model.intermediate(*vit.tape, images, 4); }),
                       {"4", "3"}));
}

TEST(VisionTransformer, CountsParametersAsPublished) {
  EXPECT_EQ(vision_transformer_size("tiny").parameter_count(), 5'524'416);
  EXPECT_EQ(vision_transformer_size("small").parameter_count(), 21'665'664);
  EXPECT_EQ(vision_transformer_size("base").parameter_count(), 85'798'656);
  const VisionFixture vit(small_options(), DType::f32);
  EXPECT_EQ(vit.parameters.elements(), small_options().parameter_count());
}

TEST(VisionTransformer, CountsOperationsByTheFormula) {
  const VisionFixture vit(small_options(), DType::f32);
  const double rows = 17, dim = 32, depth = 3;
  const double all = depth * (24 * rows * dim * dim + 4 * rows * rows * dim) + 2 * 16 * 3 * 16 * dim;
  EXPECT_DOUBLE_EQ(vit.model.flops(16, 16, false), all);
  EXPECT_DOUBLE_EQ(vit.model.flops(16, 16),
                   all - 16 * 18 * dim * dim);  // 16 patches skip projection and MLP once
}

TEST(VisionTransformer, StartsByTheStatedLaws) {
  VisionTransformerOptions options = small_options();
  options.embed_dim = 128;
  const auto deviation = [](const Tensor& tensor) {
    double sum = 0;
    for (const float value : tensor.values<float>()) sum += double{value} * value;
    return std::sqrt(sum / static_cast<double>(tensor.elements()));
  };
  // The spread of a sample of n values deviates by about 1/√(2n): 0.5 % for the 49,152 of a qkv weight.
  VisionFixture xavier(options, DType::f32);
  EXPECT_NEAR(deviation(xavier.parameters.find("blocks.0.attn.qkv.weight")->value()),
              std::sqrt(2.0 / (4 * 128)), 2e-3);
  EXPECT_NEAR(deviation(xavier.parameters.find("patch_embed.proj.weight")->value()), 1 / std::sqrt(3.0 * 48),
              2e-3);
  options.init_std = 0.02;
  VisionFixture normal(options, DType::f32);
  EXPECT_NEAR(deviation(normal.parameters.find("blocks.0.attn.qkv.weight")->value()), 0.02, 4e-4);
  EXPECT_EQ(deviation(normal.parameters.find("blocks.0.attn.qkv.bias")->value()), 0);
  EXPECT_EQ(deviation(normal.parameters.find("norm.weight")->value()), 1);
  for (const char* name : {"cls_token", "pos_embed", "patch_embed.proj.weight"})
    EXPECT_TRUE(normal.parameters.find(name)->decays()) << name;
  for (const char* name : {"norm.weight", "blocks.1.mlp.fc1.bias", "patch_embed.proj.bias"})
    EXPECT_FALSE(normal.parameters.find(name)->decays()) << name;
}

TEST(VisionTransformer, RefusesWhatCannotBe) {
  VisionFixture vit(small_options(), DType::f32);
  const auto features_of = [&](const Shape& shape) {
    return error_of(ErrorKind::data,
                    [&] { vit.model.features(*vit.tape, {Var(random_tensor(*vit.memory, shape, 1))}); });
  };
  EXPECT_TRUE(mentions(features_of({1, 3, 3, 8}), {"3 x 8", "patch of 4"}));
  EXPECT_TRUE(mentions(features_of({1, 1, 16, 16}), {"[1, 1, 16, 16]", "3 channels"}));
  VisionTransformerOptions options = small_options();
  options.heads = 5;
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { options.validate(); }), {"32", "5 heads"}));
  options = small_options();
  options.image_width = 24;  // a grid that is not square takes its own size and no other
  VisionFixture wide(options, DType::f32);
  EXPECT_EQ(wide.model.features(*wide.tape, {Var(random_tensor(*wide.memory, {1, 3, 16, 24}, 1))}).shape(),
            (Shape{1, 32}));
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data,
               [&] {
                 wide.model.features(*wide.tape, {Var(random_tensor(*wide.memory, {1, 3, 16, 16}, 1))});
               }),
      {"4 x 4", "4 x 6"}));
}

}  // namespace
}  // namespace bireme::test
