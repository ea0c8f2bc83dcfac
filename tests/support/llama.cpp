#include "tests/support/llama.h"

#include "models/published/llama.h"

namespace bireme::test {

LlamaOptions golden_llama_options(const Golden& golden) {
  const auto number = [&](const char* name) { return golden.number("config", name); };
  const auto integer = [&](const char* name) { return static_cast<std::int64_t>(number(name)); };
  LlamaOptions options;
  options.vocabulary = integer("vocab_size");
  options.channels = integer("hidden_size");
  options.hidden = integer("intermediate_size");
  options.layers = static_cast<int>(integer("num_hidden_layers"));
  options.heads = static_cast<int>(integer("num_attention_heads"));
  options.kv_heads = static_cast<int>(integer("num_key_value_heads"));
  options.head_dim = integer("head_dim");
  options.epsilon = static_cast<float>(number("rms_norm_eps"));
  options.tie_embeddings = integer("tie_word_embeddings") != 0;
  options.context = integer("max_position_embeddings");
  options.rotary = {.theta = number("rope_theta"),
                    .type = golden.text("config", "rope_type"),
                    .factor = number("rope_factor"),
                    .low_frequency_factor = number("rope_low_freq_factor"),
                    .high_frequency_factor = number("rope_high_freq_factor"),
                    .original_positions = integer("rope_original_max_position_embeddings")};
  return options;
}

LlamaFixture::LlamaFixture(const Golden& golden, DType run_type, Communicator* tensor)
    : single(tensor == nullptr ? make_single_process() : nullptr),
      model(std::make_unique<Llama>(golden_llama_options(golden), tensor == nullptr ? *single : *tensor)),
      type(run_type) {
  model->build(backend->memory(),
               {.master = type == DType::f64 ? DType::f64 : DType::f32, .bf16_copy = type == DType::bf16});
  for_golden_tensors(
      golden, "weights", *this, false,
      [](const Tensor& mine, const Tensor& expected, const std::string&) { copy(expected, mine); });
  model->parameters().refresh_bf16();
  model->parameters().begin_gradients();
}

Tensor LlamaFixture::tokens(const Tensor& golden) const {
  const Tensor result(*memory, golden.shape(), DType::i32);
  for (std::int64_t i = 0; i < golden.elements(); ++i)
    result.data<std::int32_t>()[i] = golden.dtype() == DType::i64
                                         ? static_cast<std::int32_t>(golden.data<std::int64_t>()[i])
                                     : golden.dtype() == DType::i32 ? golden.data<std::int32_t>()[i]
                                                                    : golden.data<std::uint8_t>()[i];
  return result;
}

Tensor LlamaFixture::next(const Tensor& labels) const {
  const Tensor from = tokens(labels), to(*memory, labels.shape(), DType::i32);
  const std::int64_t length = labels.shape().back();
  for (std::int64_t i = 0; i < to.elements(); ++i) {
    const bool has_next = i % length + 1 < length;
    to.data<std::int32_t>()[i] = has_next ? std::max(from.data<std::int32_t>()[i + 1], -1) : -1;
  }
  return to;
}

void for_golden_tensors(const Golden& golden, const std::string& group, const LlamaFixture& fixture,
                        bool gradients,
                        const std::function<void(const Tensor&, const Tensor&, const std::string&)>& check) {
  for (const PublishedTensor& tensor : llama_tensors(fixture.model->options())) {
    const Parameter& parameter = *fixture.model->parameters().find(tensor.parameter);
    const PublishedPart part = local_part(tensor, parameter);
    // The gradient lies as the value does.
    const std::int64_t offset =
        (part.local.raw() - parameter.value().raw()) / static_cast<std::int64_t>(size_of(part.local.dtype()));
    const Tensor mine = gradients ? parameter.gradient().view(offset, part.local.shape()) : part.local;
    const Tensor whole = convert(*fixture.memory, golden.tensor(group + "/" + tensor.name), mine.dtype());
    const Tensor expected(*fixture.memory, mine.shape(), mine.dtype());
    copy_part(whole, expected, part.partition);
    check(mine, expected, tensor.name);
  }
}

}  // namespace bireme::test
