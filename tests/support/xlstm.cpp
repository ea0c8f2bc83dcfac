#include "tests/support/xlstm.h"

#include <algorithm>

namespace bireme::test {

namespace {

std::string golden_name(const std::string& name) {
  return name == "backbone.embeddings.weight" ? "embedding.weight" : name;
}

}  // namespace

XlstmOptions golden_xlstm_options(const Golden& golden) {
  const auto integer = [&](const char* name) {
    return static_cast<std::int64_t>(golden.number("config", name));
  };
  XlstmOptions options;
  options.vocabulary = integer("vocab_size");
  options.channels = integer("embedding_dim");
  options.layers = static_cast<int>(integer("num_blocks"));
  options.chunk = 8;
  if (golden.has("weights/embedding.weight")) {
    options.architecture = XlstmArchitecture::large;
    options.heads = static_cast<int>(integer("num_heads"));
    options.hidden_width = integer("ffn_dim");
    return options;
  }
  options.architecture = XlstmArchitecture::paper;
  options.heads = static_cast<int>(integer("mlstm_num_heads"));
  options.pattern.clear();
  for (const char kind : golden.text("config", "block_map"))
    if (kind != ',') options.pattern += kind == '1' ? 's' : 'm';
  return options;
}

Tensor golden_part(const Golden& golden, const std::string& group, const Parameter& parameter, DType type) {
  const std::string name = golden_name(parameter.name()), fused = "ffn.proj_up_gate_z.weight";
  Tensor whole(golden.memory(), parameter.whole_shape(), type);
  if (name.ends_with(fused)) {
    const std::string stem = group + "/" + name.substr(0, name.size() - fused.size()) + "ffn.proj_up";
    const std::int64_t half = parameter.whole_shape()[0] / 2;
    copy(golden.tensor(stem + "_gate.weight"), whole.slice(0, half));
    copy(golden.tensor(stem + ".weight"), whole.slice(half, 2 * half));
  } else {
    copy(golden.tensor(group + "/" + name).reshape(whole.shape()), whole);
  }
  const Tensor part(golden.memory(), parameter.shape(), type);
  copy_part(whole, part, parameter.partition());
  return part;
}

void load_golden_xlstm(const Golden& golden, ParameterSet& parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    copy(golden_part(golden, "weights", parameters[i], parameters[i].value().dtype()), parameters[i].value());
  parameters.refresh_bf16();
}

XlstmFixture::XlstmFixture(const XlstmOptions& options, DType run_type, Communicator* tensor)
    : type(run_type), model(options, tensor != nullptr ? *tensor : *single) {
  model.build(backend->memory(),
              {.master = type == DType::f64 ? DType::f64 : DType::f32, .bf16_copy = type == DType::bf16});
  model.parameters().initialize(1);
  model.parameters().refresh_bf16();
}

XlstmFixture::XlstmFixture(const Golden& golden, DType run_type, Communicator* tensor)
    : XlstmFixture(golden_xlstm_options(golden), run_type, tensor) {
  load_golden_xlstm(golden, model.parameters());
}

double XlstmFixture::train(const Tensor& tokens, const Tensor& starts, bool recompute) {
  const Tensor targets(*memory, tokens.shape(), DType::i32);
  const std::int64_t length = tokens.shape()[1];
  double count = 0;
  for (std::int64_t i = 0; i < tokens.elements(); ++i) {
    const bool counts = (i + 1) % length != 0 && !(starts && starts.data<std::uint8_t>()[i + 1] != 0);
    targets.data<std::int32_t>()[i] = counts ? tokens.data<std::int32_t>()[i + 1] : -1;
    count += counts;
  }
  Tape tape(*backend);
  model.parameters().begin_gradients();
  const Var hidden = model.hidden(tape, {.tokens = tokens, .starts = starts}, how(recompute));
  const TokenLoss loss = model.head().loss(tape, hidden, targets, {.count = count});
  tape.backward(loss.loss, &model.parameters());
  return convert(*memory, loss.loss.value(), DType::f64).data<double>()[0];
}

Tensor XlstmFixture::logits(const Tensor& tokens, const Tensor& starts) const {
  Tape tape(*backend, Tape::Mode::inference);
  return model.head().logits(*backend,
                             model.hidden(tape, {.tokens = tokens, .starts = starts}, how()).value());
}

}  // namespace bireme::test
