#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/cpu/cpu_backend.h"
#include "core/io/safetensors_writer.h"
#include "models/published/xlstm.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/xlstm.h"

namespace bireme::test {
namespace {

Tensor logits_of(const Xlstm& model, const Backend& backend, const Tensor& tokens) {
  Tape tape(backend, Tape::Mode::inference);
  return model.head().logits(
      backend, model.hidden(tape, {.tokens = tokens, .starts = {}}, {.type = DType::f32}).value());
}

TEST(PublishedXlstm, HuggingFaceFolderGivesItsLogits) {
  const std::filesystem::path folder = test::golden_folder() / "xlstm/hf_tiny";
  const Golden expected("xlstm/hf_tiny/expected.h5");
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  const LoadedXlstm loaded = load_xlstm(folder, *memory, *single);
  EXPECT_EQ(loaded.published.options.channels, 128);
  EXPECT_EQ(loaded.published.end_token, 2);
  for (const char* batch : {"1x70", "2x1", "3x8"}) {
    const Tensor logits = logits_of(*loaded.model, *backend, expected.tensor(std::string("inputs/") + batch));
    expect_close(logits, expected.tensor(std::string("outputs/") + batch).reshape(logits.shape()), 1e-5, 0,
                 batch);
  }
}

/// Same bits in every parameter, hence the same logits but for the length of chunks, which is no part of a
/// model.
void expect_same_model(const Xlstm& model, const XlstmFixture& expected, const Tensor& tokens) {
  const ParameterSet &mine = model.parameters(), &theirs = expected.model.parameters();
  ASSERT_EQ(mine.size(), theirs.size());
  for (std::size_t i = 0; i < mine.size(); ++i)
    expect_identical(mine[i].value(), theirs.find(mine[i].name())->value(), mine[i].name());
  expect_close(logits_of(model, *expected.backend, tokens), expected.logits(tokens), 1e-5, 0, "logits");
}

/// Exports a golden model, reads it again, and finds the same values.
void expect_round_trip(const std::string& file) {
  const Golden golden("xlstm/" + file + ".h5");
  XlstmFixture f(golden, DType::f32);
  const TemporaryFolder place;
  PublishedXlstm published{.options = f.model.options()};
  published.end_token = 2;
  export_folder(place.path() / "model",
                {.documents = xlstm_documents(published, DType::f32),
                 .tensors = xlstm_tensors(f.model),
                 .parameters = f.model.parameters()},
                {});
  const LoadedXlstm again = load_xlstm(place.path() / "model", *f.memory, *f.single);
  EXPECT_EQ(again.published.end_token, 2);
  expect_same_model(*again.model, f, golden.tensor("inputs/tokens"));
}

TEST(PublishedXlstm, FoldersOfBothArchitecturesComeBackAsTheyWere) {
  expect_round_trip("lm_msm");
  expect_round_trip("large_tiny");
}

TEST(PublishedXlstm, TakesThePackagesNamesAndTheCudaLayout) {
  const Golden golden("xlstm/lm_msm.h5");
  XlstmFixture f(golden, DType::f32);
  const TemporaryFolder place;
  std::filesystem::create_directory(place.path() / "model");
  const PublishedXlstm published{.options = f.model.options()};
  std::ofstream(place.path() / "model" / "config.json") << xlstm_documents(published, DType::f32)[0].text;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const std::string& name : golden.members("weights")) {
    Tensor tensor = golden.tensor("weights/" + name);
    const Shape shape = tensor.shape();
    if (name.ends_with("_recurrent_kernel_")) {  // [head, gate and out, in] to [head, in, gate and out]
      const Tensor cuda(*f.memory, {shape[0], shape[2], shape[1]}, DType::f32);
      for (std::int64_t h = 0; h < shape[0]; ++h)
        for (std::int64_t o = 0; o < shape[1]; ++o)
          for (std::int64_t i = 0; i < shape[2]; ++i)
            cuda.data<float>()[(h * shape[2] + i) * shape[1] + o] =
                tensor.data<float>()[(h * shape[1] + o) * shape[2] + i];
      tensor = cuda;
    } else if (name.ends_with("_bias_")) {  // [gate, head, unit] to [head, gate, unit]
      const Tensor cuda(*f.memory, shape, DType::f32);
      for (std::int64_t i = 0; i < 128; ++i)
        cuda.data<float>()[(i / 8 % 4 * 4 + i / 32) * 8 + i % 8] = tensor.data<float>()[i];
      tensor = cuda;
    }
    tensors.emplace_back(name, tensor);
  }
  write_safetensors(place.path() / "model" / "model.safetensors", tensors);
  const LoadedXlstm loaded = load_xlstm(place.path() / "model", *f.memory, *f.single);
  expect_same_model(*loaded.model, f, golden.tensor("inputs/tokens"));
  EXPECT_EQ(xlstm_names({"embedding.weight"}).at("backbone.embeddings.weight"), "embedding.weight");
}

/// Rows of several tensors as one.
Tensor stacked(Memory& memory, const std::vector<Tensor>& parts) {
  std::int64_t rows = 0;
  for (const Tensor& part : parts) rows += part.shape()[0];
  Shape shape = parts.front().shape();
  shape[0] = rows;
  const Tensor whole(memory, shape, DType::f32);
  std::int64_t row = 0;
  for (const Tensor& part : parts) {
    copy(part, whole.slice(row, row + part.shape()[0]));
    row += part.shape()[0];
  }
  return whole;
}

TEST(PublishedXlstm, TakesFusedWeightsOnAnyNumberOfRanks) {
  const std::filesystem::path folder = test::golden_folder() / "xlstm/hf_tiny";
  const auto memory = make_host_memory();
  const SafetensorsFolder single = SafetensorsFolder::open(folder);
  const TemporaryFolder place;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const std::string& name : single.names()) {
    const auto replace = [&](const char* last, const std::string& fused,
                             const std::vector<std::string>& parts) {
      const std::size_t at = name.rfind(last);
      if (at == std::string::npos) return false;
      std::vector<Tensor> rows;
      for (const std::string& part : parts) rows.push_back(single.read(name.substr(0, at) + part, *memory));
      tensors.emplace_back(name.substr(0, at) + fused, stacked(*memory, rows));
      return true;
    };
    const std::vector<std::string> gone = {".k.weight",           ".v.weight",         ".ogate_preact.weight",
                                           "fgate_preact.weight", "fgate_preact.bias", "proj_up.weight"};
    if (replace("mlstm_layer.q.weight", "mlstm_layer.qkv_opreact.weight",
                {"mlstm_layer.q.weight", "mlstm_layer.k.weight", "mlstm_layer.v.weight",
                 "mlstm_layer.ogate_preact.weight"}) ||
        replace("igate_preact.weight", "ifgate_preact.weight",
                {"igate_preact.weight", "fgate_preact.weight"}) ||
        replace("igate_preact.bias", "ifgate_preact.bias", {"igate_preact.bias", "fgate_preact.bias"}) ||
        replace("proj_up_gate.weight", "proj_up_gate_z.weight", {"proj_up_gate.weight", "proj_up.weight"}) ||
        std::any_of(gone.begin(), gone.end(), [&](const std::string& end) { return name.ends_with(end); }))
      continue;
    tensors.emplace_back(name, single.read(name, *memory));
  }
  std::string config = (std::stringstream() << std::ifstream(folder / "config.json").rdbuf()).str();
  config.replace(config.find("\"single\""), 8, "\"fused\"");
  place.write("config.json", config);
  write_safetensors(place.path() / "model.safetensors", tensors);
  EXPECT_LT(tensors.size(), single.names().size());
  run_on_ranks(2, [&](Communicator& tensor) {
    const auto own = make_host_memory();
    const LoadedXlstm fused = load_xlstm(place.path(), *own, tensor),
                      whole = load_xlstm(folder, *own, tensor);
    expect_identical(fused.model->parameters().flat_values(), whole.model->parameters().flat_values(),
                     "values");
  });
}

TEST(PublishedXlstm, NamesWhatDoesNotFit) {
  const TemporaryFolder place;
  std::ofstream(place.path() / "config.json")
      << R"({"model_type": "xlstm", "vocab_size": 8, "use_bias": true})";
  std::string message = error_of(ErrorKind::checkpoint, [&] { read_xlstm(place.path()); });
  EXPECT_NE(message.find("`use_bias` is true"), std::string::npos) << message;
  std::ofstream(place.path() / "config.json")
      << R"({"model_type": "xlstm_paper", "vocab_size": 8, "slstm_at": [3]})";
  message = error_of(ErrorKind::checkpoint, [&] { read_xlstm(place.path()); });
  EXPECT_NE(message.find("`slstm_at` names block 3 of 1"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
