#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"
#include "core/io/safetensors_writer.h"
#include "models/published/llama.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/llama.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

const char* const kConfig = R"({"model_type": "llama", "vocab_size": 61, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "eos_token_id": [5, 6])";

/// The weights of a golden file as they would lie in a folder.
std::vector<std::pair<std::string, Tensor>> golden_weights(const Golden& golden, const std::string& prefix) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  const LlamaOptions options = golden_llama_options(golden);
  for (const PublishedTensor& tensor : llama_tensors(options)) {
    const bool is_head = tensor.name == "lm_head.weight";
    const std::string name =
        is_head ? tensor.name : prefix + tensor.name.substr(std::string("model.").size());
    tensors.emplace_back(name, golden.tensor("weights/" + tensor.name));
  }
  return tensors;
}

Tensor logits_of(const Llama& model, const Tensor& tokens) {
  const auto backend = make_cpu_backend(make_host_memory());
  Tape tape(*backend, Tape::Mode::inference);
  const Tensor hidden = model.hidden(tape, {.tokens = tokens, .starts = {}}, {}).value();
  return clone(*make_host_memory(), model.head().logits(*backend, hidden));
}

void expect_golden_logits(const Golden& golden, const Llama& model) {
  const LlamaFixture f(golden, DType::f32);
  const Tensor logits = logits_of(model, f.tokens(golden.tensor("inputs/tokens")));
  expect_close(logits, golden.tensor("outputs/logits").reshape(logits.shape()), 1e-5, 1e-6, "logits");
}

TEST(PublishedLlama, ReadsFoldersOfAnyPrefixAndIgnoresOldBuffers) {
  const Golden golden("llama/forward_gqa.h5");
  for (const char* prefix : {"model.", "transformer.", ""}) {
    SCOPED_TRACE(prefix);
    const TemporaryFolder folder;
    folder.write("config.json", std::string(kConfig) + "}");
    auto tensors = golden_weights(golden, prefix);
    const Tensor buffer(golden.memory(), {4}, DType::f32);
    fill(buffer, 1);
    tensors.emplace_back(std::string(prefix) + "layers.0.self_attn.rotary_emb.inv_freq", buffer);
    write_safetensors(folder.path() / "model.safetensors", tensors);
    const auto single = make_single_process();
    const LoadedLlama loaded = load_llama(folder.path(), golden.memory(), *single);
    EXPECT_EQ(loaded.published.end_tokens, (std::vector<std::int64_t>{5, 6}));
    expect_golden_logits(golden, *loaded.model);
  }
}

TEST(PublishedLlama, EachRankReadsItsPart) {
  const Golden golden("llama/forward_gqa.h5");
  const TemporaryFolder folder;
  folder.write("config.json", std::string(kConfig) + "}");
  write_safetensors(folder.path() / "model.safetensors", golden_weights(golden, "model."));
  run_on_ranks(2, [&](Communicator& tensor) {
    const auto memory = make_host_memory();
    const LoadedLlama loaded = load_llama(folder.path(), *memory, tensor);
    expect_golden_logits(Golden("llama/forward_gqa.h5"), *loaded.model);
  });
}

TEST(PublishedLlama, WritesWhatItReads) {
  for (const char* file : {"forward_gqa", "forward_mha_tied", "forward_head_dim", "forward_rope_llama3"}) {
    SCOPED_TRACE(file);
    const Golden golden(std::string("llama/") + file + ".h5");
    const LlamaFixture f(golden, DType::f32);
    const TemporaryFolder folder;
    const PublishedLlama published{
        .options = f.model->options(), .begin_token = 1, .end_tokens = {2, 7}, .pad_token = -1};
    export_folder(folder.path() / "out",
                  {.documents = llama_documents(published, DType::f32),
                   .tensors = llama_tensors(f.model->options()),
                   .parameters = f.model->parameters()},
                  {.shard_bytes = 8000});
    EXPECT_TRUE(std::filesystem::exists(folder.path() / "out" / "model.safetensors.index.json"));
    const auto single = make_single_process();
    const LoadedLlama loaded = load_llama(folder.path() / "out", golden.memory(), *single);
    EXPECT_EQ(loaded.published.options.tie_embeddings, f.model->options().tie_embeddings);
    EXPECT_EQ(loaded.published.options.rotary.type, f.model->options().rotary.type);
    EXPECT_EQ(loaded.published.end_tokens, (std::vector<std::int64_t>{2, 7}));
    expect_identical(loaded.model->parameters().flat_values(), f.model->parameters().flat_values(),
                     "parameters");
    expect_golden_logits(golden, *loaded.model);
  }
}

PublishedLlama read_config(const std::string& more, const std::string& generation = "") {
  const TemporaryFolder folder;
  folder.write("config.json", std::string(kConfig) + more + "}");
  if (!generation.empty()) folder.write("generation_config.json", generation);
  return read_llama(folder.path());
}

TEST(PublishedLlama, ReadsBothSpellingsOfRotarySettings) {
  const std::string scaling = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64)";
  for (const PublishedLlama& published :
       {read_config(R"(, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", )" + scaling + "}"),
        read_config(R"(, "rope_theta": 500000.0, "rope_scaling": {"type": "llama3", )" + scaling + "}"),
        read_config(R"(, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", )" + scaling +
                    "}")}) {
    const RotaryOptions& rotary = published.options.rotary;
    EXPECT_EQ(rotary.theta, 500000);
    EXPECT_EQ(rotary.type, "llama3");
    EXPECT_EQ(rotary.factor, 8);
    EXPECT_EQ(rotary.high_frequency_factor, 4);
    EXPECT_EQ(rotary.original_positions, 64);
  }
  EXPECT_EQ(read_config(R"(, "rope_scaling": null)").options.rotary.type, "default");
}

TEST(PublishedLlama, GenerationConfigSaysWhatEndsAText) {
  EXPECT_EQ(read_config("", R"({"eos_token_id": 9})").end_tokens, (std::vector<std::int64_t>{9}));
}

TEST(PublishedLlama, NamesTheSettingThatCannotBe) {
  const auto message = [](const std::string& more) {
    return error_of(ErrorKind::checkpoint, [&] { read_config(more); });
  };
  EXPECT_TRUE(mentions(message(R"(, "hidden_act": "gelu")"), {"`hidden_act` is `gelu`", "config.json"}));
  EXPECT_TRUE(mentions(message(R"(, "rope_scaling": {"type": "longrope"})"), {"`longrope`"}));
  EXPECT_TRUE(mentions(message(R"(, "pretraining_tp": 2)"), {"pretraining_tp"}));
}

TEST(PublishedLlama, NamesEveryTensorThatIsMissingUnknownOrMisshapen) {
  const Golden golden("llama/forward_gqa.h5");
  const TemporaryFolder folder;
  folder.write("config.json", std::string(kConfig) + "}");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (auto& [name, tensor] : golden_weights(golden, "model.")) {
    if (name == "model.layers.0.self_attn.k_proj.weight") continue;
    if (name == "model.layers.1.mlp.up_proj.weight") tensor = tensor.slice(0, 40);
    tensors.emplace_back(name, tensor);
  }
  tensors.emplace_back("model.layers.7.strange", tensors.front().second);
  write_safetensors(folder.path() / "model.safetensors", tensors);
  const auto single = make_single_process();
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::checkpoint, [&] { load_llama(folder.path(), golden.memory(), *single); }),
      {"`model.layers.0.self_attn.k_proj.weight` of shape [16, 32] is missing",
       "`model.layers.1.mlp.up_proj.weight` has the shape [40, 32], the configuration asks for [48, 32]",
       "model.layers.7.strange"}));
}

TEST(PublishedLlama, ATiedModelWithAnotherHeadIsUntied) {
  const Golden golden("llama/forward_gqa.h5");
  const auto single = make_single_process();
  for (const bool same : {true, false}) {
    const TemporaryFolder folder;
    folder.write("config.json", std::string(kConfig) + R"(, "tie_word_embeddings": true})");
    auto tensors = golden_weights(golden, "model.");
    if (same) tensors.back().second = tensors.front().second;
    write_safetensors(folder.path() / "model.safetensors", tensors);
    const LoadedLlama loaded = load_llama(folder.path(), golden.memory(), *single);
    EXPECT_EQ(loaded.published.options.tie_embeddings, same);
    if (!same) expect_golden_logits(golden, *loaded.model);
  }
}

}  // namespace
}  // namespace bireme::test
