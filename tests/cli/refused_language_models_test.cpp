#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "core/base/json.h"
#include "core/io/hdf5.h"
#include "core/tensor/memory.h"
#include "tests/cli/language_runs.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

/// Bad input reaches the program itself: each case must end in one line that says what is wrong and where.
class RefusedLanguageModels : public LanguageRuns {
 protected:
  /// A Hugging Face folder of a LLaMA of 16 channels, written anew, with its byte tokenizer.
  std::string published() {
    const Outcome exported = run_program("export --model " + run_of("llama") + " --output " + path("model"));
    EXPECT_EQ(exported.code, 0) << exported.errors;
    return path("model");
  }
  static std::string greet(const std::string& model) {
    return "generate --model " + model + " --prompt hello --max-tokens 2 --temperature 0";
  }

  /// Ended with this code, and after one line that holds every part.
  static void expect_one_error(const Outcome& outcome, int code, std::initializer_list<std::string> parts) {
    EXPECT_EQ(outcome.code, code) << outcome.errors;
    EXPECT_EQ(outcome.output, "");
    EXPECT_TRUE(outcome.errors.starts_with("bireme: error: ")) << outcome.errors;
    EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 1) << outcome.errors;
    EXPECT_TRUE(mentions(outcome.errors, parts));
  }

  void write_tokens(const std::vector<std::int32_t>& ids) const {
    const auto memory = make_host_memory();
    const Tensor tokens(*memory, {std::ssize(ids)}, DType::i32);
    std::copy(ids.begin(), ids.end(), tokens.data<std::int32_t>());
    Hdf5Writer writer(path("tokens.h5"));
    writer.write("tokens", tokens);
    writer.close();
  }

  /// Changes the header of the published weights; what follows it stays.
  void change_header(const std::function<void(nlohmann::ordered_json&)>& change) {
    const std::string bytes = folder_.read("model/model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    auto header = nlohmann::ordered_json::parse(bytes.substr(8, length));
    change(header);
    write_weights(json_text(header), bytes.substr(8 + length));
  }
  void write_weights(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    std::string bytes(sizeof length, '\0');
    std::memcpy(bytes.data(), &length, sizeof length);
    folder_.write("model/model.safetensors", bytes + header + data);
  }
};

constexpr const char* kNorm = "model.norm.weight";  // [16]
constexpr const char* kHead = "lm_head.weight";     // [257, 16]

TEST_F(RefusedLanguageModels, TakeTheFolderAsItWasWritten) {
  const Outcome outcome = run_program(greet(published()));
  EXPECT_EQ(outcome.code, 0) << outcome.errors;
  EXPECT_TRUE(outcome.output.starts_with("hello"));
}

TEST_F(RefusedLanguageModels, LyingSafetensorsHeadersAreNamed) {
  using Json = nlohmann::ordered_json;
  struct Lie {
    const char* what;
    std::function<void(Json&)> change;
    std::string part;
  };
  const std::vector<Lie> lies = {
      {"an end past the file", [](Json& h) { h[kNorm]["data_offsets"][1] = 1 << 30; }, kNorm},
      {"overlapping tensors",
       [](Json& h) {
         h[kNorm]["data_offsets"] = Json::array({0, 64});
       },
       "model.safetensors"},
      {"an absurd shape",
       [](Json& h) {
         h[kNorm]["shape"] = Json::array({std::int64_t{1} << 62, 16});
       },
       kNorm},
      {"a negative shape", [](Json& h) { h[kNorm]["shape"] = Json::array({-16}); }, kNorm},
      {"fewer bytes than the shape", [](Json& h) { h[kNorm]["shape"] = Json::array({17}); }, kNorm},
      {"an unknown type", [](Json& h) { h[kNorm]["dtype"] = "F17"; }, kNorm},
      {"no offsets", [](Json& h) { h[kNorm].erase("data_offsets"); }, kNorm}};
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.what);
    std::filesystem::remove_all(path("model"));
    published();
    change_header(lie.change);
    expect_one_error(run_program(greet(path("model"))), 4, {"model.safetensors", lie.part});
  }
}

TEST_F(RefusedLanguageModels, GiantTornAndSenselessHeadersAreNamed) {
  published();
  const std::string whole = folder_.read("model/model.safetensors");
  std::string giant = whole;
  giant[7] = '\x7f';  // of the length's bytes the highest
  for (const auto& [bytes, what] : {std::pair{giant, "header claims"},
                                    {whole.substr(0, 5), "5 bytes"},
                                    {whole.substr(0, whole.size() - 10), "model.safetensors"},
                                    {std::string(8, '\0') + "{}", "model.safetensors"}}) {
    folder_.write("model/model.safetensors", bytes);
    expect_one_error(run_program(greet(path("model"))), 4, {"model.safetensors", what});
  }
  write_weights("{\"a\": {\"dtype\": \"F32\"", "");
  expect_one_error(run_program(greet(path("model"))), 4, {"model.safetensors"});
}

TEST_F(RefusedLanguageModels, MissingExtraAndMisshapenTensorsAreNamed) {
  published();
  change_header([](auto& header) {
    header["model.layers.7.surplus.weight"] = header[kNorm];
    header.erase(kNorm);
  });
  expect_one_error(run_program(greet(path("model"))), 4, {"missing", kNorm, "model.layers.7.surplus.weight"});
  std::filesystem::remove_all(path("model"));
  published();
  change_header([](auto& header) { header[kHead]["shape"] = {16, 257}; });
  expect_one_error(run_program(greet(path("model"))), 4, {kHead, "[16, 257]", "[257, 16]"});
}

TEST_F(RefusedLanguageModels, ModelsOfTheWrongKindAreNamed) {
  const std::string config = R"({"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 64, "image_size": 8, "patch_size": 4, "num_channels": 1})";
  folder_.write("pictures/config.json", config);
  folder_.write("pictures/model.safetensors", std::string("\2\0\0\0\0\0\0\0{}", 10));
  const std::string model = " --model " + path("pictures");
  for (const std::string words :
       {"generate --prompt a", "evaluate perplexity --data nowhere", "score --tokens x.h5 --output y.h5",
        "bench decode", "plot decay --output a.png", "plot propagation --prompt a --output a.png"}) {
    SCOPED_TRACE(words);
    expect_one_error(run_program(words + model), 4, {"pictures", "no language model"});
  }
  expect_one_error(run_program("plot attention --input x.png --output a.png --model " + run_of("llama")), 4,
                   {"llama"});
}

TEST_F(RefusedLanguageModels, TextThatCannotBeIsNamed) {
  const std::string model = run_of("llama");
  const std::string generate = "generate --model " + model + " --max-tokens 2 --prompt ";
  // A prompt that is not UTF-8 is refused, with the byte; an empty one begins a document.
  expect_one_error(run_program(generate + "\"$(printf 'a\\377')\""), 3, {"UTF-8", "byte 1"});
}

TEST_F(RefusedLanguageModels, PromptsBeyondTheContextAreNamed) {
  const std::string words =
      "generate --max-tokens 2 --temperature 0 --prompt aaaaaaaaaaaaaaaaaaaaaaaa --model ";
  expect_one_error(run_program(words + run_of("llama")), 2,
                   {"24 tokens", "context of 16", "--beyond-context"});
  EXPECT_EQ(run_program(words + run_of("llama") + " --beyond-context").code, 0);
  EXPECT_EQ(run_program(words + run_of("rwkv")).code, 0) << "a recurrent model has no limit";
}

TEST_F(RefusedLanguageModels, TokensAndTokenizersThatAreNotTheModelsAreNamed) {
  const std::string model = run_of("llama");
  write_tokens({1, 2, 257});
  const std::string score =
      "score --model " + model + " --tokens " + path("tokens.h5") + " --output " + path("out.h5");
  expect_one_error(run_program(score), 3, {"token 257", "257", "tokens.h5"});
  write_tokens({1, -2, 3});
  expect_one_error(run_program(score), 3, {"token -2", "tokens.h5"});
  const std::string generate = "generate --model " + model + " --prompt a --tokenizer ";
  expect_one_error(run_program(generate + "/no/such.model"), 3, {"/no/such.model", "no such tokenizer"});
  folder_.write("tokenizer.json", "{\"model\": 3}");
  expect_one_error(run_program(generate + path("tokenizer.json")), 3, {"tokenizer.json"});
  // Ready-made tokens of a larger vocabulary than the model has.
  Outcome prepared = run_program("prepare tokens --vocab-size 1000 --document-end 999 --input " +
                                 path("tokens.h5") + " --output " + path("large"));
  EXPECT_EQ(prepared.code, 3) << "-2 is no token";
  write_tokens({1, 900, 3});
  prepared = run_program("prepare tokens --vocab-size 1000 --document-end 999 --input " + path("tokens.h5") +
                         " --output " + path("large"));
  ASSERT_EQ(prepared.code, 0) << prepared.errors;
  expect_one_error(run_program("evaluate perplexity --model " + model + " --data " + path("large")), 3,
                   {"1000", "257", "large"});
  expect_one_error(run_program("train --model.type llama --model.vocabulary_size 300 --data.sequence_length "
                               "2 --data.batch_size 1 --run " +
                               path("r") + " --data.path " + path("large")),
                   2, {"model.vocabulary_size is 300", "1000", "large"});
}

}  // namespace
}  // namespace bireme::test
