#include "tests/support/vision.h"

#include "core/tensor/random.h"

namespace bireme::test {

VisionTransformerOptions golden_vision_options(const Golden& golden) {
  const auto integer = [&](const char* name) { return static_cast<int>(golden.number("config", name)); };
  VisionTransformerOptions options;
  options.embed_dim = integer("embed_dim");
  options.depth = integer("depth");
  options.heads = integer("num_heads");
  options.patch = integer("patch_size");
  options.channels = integer("in_chans");
  options.image_size = integer("image_size");
  options.mlp_ratio = golden.number("config", "mlp_ratio");
  options.layer_norm_epsilon = static_cast<float>(golden.number("config", "layer_norm_eps"));
  return options;
}

void load_golden_weights(const Golden& golden, ParameterSet& parameters, const std::string& prefix) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter& parameter = parameters[i];
    const Tensor whole =
        golden.tensor("weights/" + parameter.name().substr(prefix.size())).reshape(parameter.whole_shape());
    const Tensor part(golden.memory(), parameter.shape(), parameter.value().dtype());
    copy_part(convert(golden.memory(), whole, part.dtype()), part, parameter.partition());
    copy(part, parameter.value());
  }
  parameters.refresh_bf16();
}

void expect_golden_gradients(const Golden& golden, const std::string& group, const ParameterSet& parameters,
                             double tolerance, int at_least, double absolute) {
  int compared = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const std::string path = group + "/" + parameter.name();
    if (!golden.has(path)) continue;
    const Tensor whole = golden.tensor(path).reshape(parameter.whole_shape());
    const Tensor part(golden.memory(), parameter.shape(), whole.dtype());
    copy_part(whole, part, parameter.partition());
    expect_close(parameter.gradient(), part, tolerance, absolute, path);
    ++compared;
  }
  EXPECT_GE(compared, at_least) << "golden gradients found in " << group;
}

VisionFixture::VisionFixture(const VisionTransformerOptions& options, DType master, Communicator* tensor)
    : model(options, parameters, "", tensor != nullptr ? *tensor : *single) {
  parameters.build(*memory, {.master = master, .gradients = true, .bf16_copy = master == DType::f32});
  parameters.initialize(1);
  start();
}

void VisionFixture::start() {
  parameters.begin_gradients();
  tape = std::make_unique<Tape>(*backend);
}

Tensor random_tensor(Memory& memory, const Shape& shape, std::uint64_t seed, DType type) {
  const Tensor values(memory, shape, DType::f32);
  RandomStream random(seed, 0, RandomUse::test);
  for (float& value : values.values<float>()) value = static_cast<float>(random.below(33) - 16) / 16;
  return convert(memory, values, type);
}

}  // namespace bireme::test
