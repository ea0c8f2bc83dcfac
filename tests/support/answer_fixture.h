#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "core/data/answer_dataset.h"
#include "core/data/prepare_answers.h"
#include "models/published/language_model.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {

/// A small language model over bytes with random weights, and datasets made of a few lines.
struct AnswerFixture {
  explicit AnswerFixture(const std::string& type = "llama", std::uint64_t seed = 5) {
    published = make_language_model({.type = type,
                                     .vocabulary = 257,
                                     .channels = 32,
                                     .layers = 2,
                                     .heads = 4,
                                     .context = 256,
                                     .end_token = 256},
                                    *single);
    published->build(*memory, {.gradients = false});
    published->model().parameters().initialize(seed);
  }

  /// Prepares a dataset under `name`.
  AnswerDataset prepare(const std::string& name, AnswerKind kind, const std::string& lines,
                        std::int64_t shard_size = 1000) const {
    PrepareAnswersOptions options;
    options.kind = kind;
    options.lines = {.inputs = {folder.write(name + ".jsonl", lines)}, .kind = kind};
    options.tokens.tokenizer = open_tokenizer("byte");
    options.tokens.end = 256;
    options.output = folder.path() / name;
    options.shard_size = shard_size;
    options.replace = true;
    prepare_answers(options);
    return AnswerDataset::open(options.output, {kind});
  }
  /// Some pairs of different lengths.
  static std::string pairs(int count) {
    std::string lines;
    for (int i = 0; i < count; ++i)
      lines += "{\"prompt\": \"Q" + std::to_string(i) + "?\", \"chosen\": \"" +
               std::string(static_cast<std::size_t>(1 + i % 7), static_cast<char>('a' + i % 26)) +
               "\", \"rejected\": \"no" + std::to_string(i * i) +
               "\", \"preference\": " + (i % 3 == 0 ? "0.75" : "1") + "}\n";
    return lines;
  }
  /// The model as a folder that programs open.
  std::filesystem::path exported(const std::string& name) const {
    const std::filesystem::path path = folder.path() / name;
    std::vector<Document> beside;
    const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer("byte");
    for (const TokenizerFile& file : tokenizer->files()) beside.push_back({file.name, file.bytes});
    export_language_model(path, *published, beside, {});
    return path;
  }

  TemporaryFolder folder;
  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  std::unique_ptr<Communicator> single = make_single_process();
  std::unique_ptr<PublishedLanguageModel> published;
};

}  // namespace bireme::test
