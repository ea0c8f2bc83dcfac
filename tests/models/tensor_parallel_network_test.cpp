#include <gtest/gtest.h>

#include "models/dino_network.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"
#include "tests/support/vision.h"

namespace bireme::test {
namespace {

TEST(TensorParallelVisionTransformer, MatchesGolden) {
  run_on_ranks(2, [](Communicator& tensor) {
    const Golden golden("vision/vit_16px.h5");
    VisionFixture vit(golden_vision_options(golden), DType::f32, &tensor);
    load_golden_weights(golden, vit.parameters);
    const Var images = vit.tape->leaf(vit.constant(golden.tensor("inputs/images")));
    const Var tokens = vit.model.tokens(*vit.tape, {images}, vit.how());
    constexpr double kTolerance = 1e-5;  // the fixture's own
    expect_close(tokens.value(), golden.tensor("outputs/tokens"), kTolerance, 0, "tokens");
    vit.backward(tokens, golden.tensor("inputs/cotangent").reshape(tokens.shape()));
    expect_close(vit.tape->gradient(images), golden.tensor("grads/images"), kTolerance, 0,
                 "gradient of the images");
    expect_golden_gradients(golden, "grads", vit.parameters, kTolerance,
                            static_cast<int>(vit.parameters.size()));
  });
}

DinoNetworkOptions network_options() {
  DinoNetworkOptions options;
  options.backbone.embed_dim = 32;
  options.backbone.depth = 2;
  options.backbone.heads = 4;
  options.backbone.patch = 4;
  options.backbone.image_size = 16;
  options.backbone.drop_path = 0.3;
  options.backbone.init_std = 0;
  options.head = {
      .layers = 3, .hidden = 24, .bottleneck = 8, .out_dim = 20, .norm_last_layer = false, .init_std = 0};
  return options;
}

/// A network on its own tape after one step forward and back, with a cotangent that is the same for each
/// prototype wherever it lies.
struct Step {
  Step(Communicator& tensor, bool recompute) : network(network_options(), tensor) {
    network.build(*memory, {.master = DType::f64, .gradients = true, .bf16_copy = false});
    network.parameters().initialize(5);
    network.parameters().begin_gradients();
    const std::vector<ImageGroup> groups = {
        {.pixels = random_tensor(*memory, {4, 3, 16, 16}, 1, DType::f64), .crops = 2, .side = 16},
        {.pixels = random_tensor(*memory, {6, 3, 8, 8}, 2, DType::f64), .crops = 3, .side = 8}};
    Tape tape(*backend);
    const KeepBranch keep = network.keep({.seed = 1, .step = 2, .records = {30, 31}});
    const Var y = network.forward(tape, groups, {.type = DType::f64, .keep = keep, .recompute = recompute});
    logits = y.value();
    const Tensor cotangent = random_tensor(*memory, {20, 10}, 3, DType::f64);  // [K, rows]
    const Tensor dy(*memory, y.shape(), DType::f64);
    const std::int64_t columns = y.shape().back();
    for (std::int64_t row = 0; row < 10; ++row)
      for (std::int64_t k = 0; k < columns; ++k)
        dy.data<double>()[row * columns + k] =
            cotangent.data<double>()[(tensor.rank() * columns + k) * 10 + row];
    tape.backward(y, &network.parameters(), {}, dy);
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  DinoNetwork network;
  Tensor logits;
};

void expect_same_step(const Step& split, const Step& whole, int rank) {
  constexpr double kSameMathematics = 1e-10;  // fp64: only the order of sums differs
  const std::int64_t columns = split.logits.shape().back();
  const Tensor expected(*whole.memory, split.logits.shape(), DType::f64);
  for (std::int64_t row = 0; row < 10; ++row)
    for (std::int64_t k = 0; k < columns; ++k)
      expected.data<double>()[row * columns + k] = whole.logits.data<double>()[row * 20 + rank * columns + k];
  expect_close(split.logits, expected, kSameMathematics, 0, "logits");
  for (std::size_t i = 0; i < whole.network.parameters().size(); ++i) {
    const Parameter &part = split.network.parameters()[i], &all = whole.network.parameters()[i];
    const Tensor gradient(*whole.memory, part.shape(), DType::f64);
    copy_part(all.gradient(), gradient, part.partition());
    expect_close(part.gradient(), gradient, kSameMathematics, 1e-12, part.name());
  }
}

TEST(TensorParallelDinoNetwork, MatchesOneRank) {
  for (const int ranks : {2, 4}) {
    SCOPED_TRACE(ranks);
    run_on_ranks(ranks, [](Communicator& tensor) {
      const auto single = make_single_process();
      for (const bool recompute : {false, true}) {
        SCOPED_TRACE(recompute ? "blocks run again" : "blocks kept");
        expect_same_step(Step(tensor, recompute), Step(*single, recompute), tensor.rank());
      }
    });
  }
}

TEST(TensorParallelDinoNetwork, RefusesDegreesThatDoNotDivide) {
  run_on_ranks(3, [](Communicator& tensor) {
    const std::string heads =
        error_of(ErrorKind::usage, [&] { DinoNetwork network(network_options(), tensor); });
    EXPECT_TRUE(mentions(
        heads, {"parallel.tensor is 3, but 4 attention heads do not divide by 3", "choose 1, 2 or 4"}));
    ParameterSet parameters;
    const std::string prototypes =
        error_of(ErrorKind::usage, [&] { DinoHead head(network_options().head, parameters, "", tensor); });
    EXPECT_TRUE(mentions(prototypes, {"20 prototypes do not divide by 3", "choose 1, 2, 4, 5, 10 or 20"}));
  });
}

}  // namespace
}  // namespace bireme::test
