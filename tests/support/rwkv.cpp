#include "tests/support/rwkv.h"

namespace bireme::test {

RwkvOptions golden_rwkv_options(const Golden& golden) {
  const auto integer = [&](const char* name) {
    return static_cast<std::int64_t>(golden.number("config", name));
  };
  return {.vocabulary = integer("vocab_size"),
          .channels = integer("n_embd"),
          .layers = static_cast<int>(integer("n_layer")),
          .attention_channels = integer("dim_att"),
          .hidden = integer("dim_ffn"),
          .layer_norm_epsilon = static_cast<float>(golden.number("config", "layer_norm_eps"))};
}

Tensor next_tokens(Memory& memory, const Tensor& tokens, const Tensor& starts) {
  const std::int64_t batch = tokens.shape()[0], length = tokens.shape()[1];
  const Tensor next(memory, tokens.shape(), DType::i32);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int64_t i = b * length + t;
      const bool none = t + 1 == length || (starts && starts.data<std::uint8_t>()[i + 1] != 0);
      next.data<std::int32_t>()[i] = none ? -1 : tokens.data<std::int32_t>()[i + 1];
    }
  return next;
}

RwkvFixture::RwkvFixture(const RwkvOptions& options, DType master, Communicator* tensor)
    : model(options, tensor != nullptr ? *tensor : *single) {
  model.build(backend->memory(), {.master = master, .gradients = true, .bf16_copy = master == DType::f32});
  model.parameters().initialize(1);
}

RwkvFixture::RwkvFixture(const Golden& golden, DType master, Communicator* tensor)
    : RwkvFixture(golden_rwkv_options(golden), master, tensor) {
  load_golden_weights(golden, model.parameters());
}

Tensor RwkvFixture::logits(const Tensor& tokens, const Tensor& starts) const {
  Tape tape(*backend, Tape::Mode::inference);
  return logits_of(
      model.hidden(tape, {.tokens = tokens, .starts = starts}, {.type = type(), .recompute = false}).value());
}

double RwkvFixture::train(const Tensor& tokens, const Tensor& targets, const Tensor& starts, bool recompute) {
  double count = 0;
  for (const std::int32_t target : targets.values<std::int32_t>()) count += target >= 0 ? 1 : 0;
  model.parameters().begin_gradients();
  Tape tape(*backend);
  const Var hidden =
      model.hidden(tape, {.tokens = tokens, .starts = starts}, {.type = type(), .recompute = recompute});
  const TokenLoss loss = model.head().loss(tape, hidden, targets, {.count = count});
  const double value = convert(*memory, loss.loss.value(), DType::f64).data<double>()[0];
  tape.backward(loss.loss, &model.parameters());
  return value;
}

}  // namespace bireme::test
