#include "core/data/prepare_text.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/json.h"
#include "launch/commands.h"
#include "launch/numbers.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;

/// Bytes of the input as they pass, with the tokens made of them; per second where the clock has moved.
class TokenProgress {
 public:
  void operator()(std::int64_t done, std::int64_t total, std::int64_t tokens) {
    if (!bar_) bar_.emplace(terminal_progress(label_, total, 0, 0));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    bar_->update(done, fmt::format("{} tokens  {} tokens/s", short_number(static_cast<double>(tokens)),
                                   short_number(static_cast<double>(tokens) / std::max(seconds, 1e-3))));
  }
  explicit TokenProgress(std::string label) : label_(std::move(label)) {}
  void close() { bar_.reset(); }

 private:
  std::string label_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::optional<Progress> bar_;
};

nlohmann::ordered_json json_of(const PreparedTokens& prepared) {
  return {
      {"output", prepared.output.string()}, {"documents", prepared.documents}, {"tokens", prepared.tokens}};
}

void print_json(const PrepareTextReport& report) {
  nlohmann::ordered_json result = json_of(report.train);
  result["bytes"] = report.text.bytes;
  result["empty_documents"] = report.text.empty_documents;
  result["bad_lines"] = report.text.bad_lines;
  result["first_bad_lines"] = report.text.first_bad_lines;
  if (report.validation.tokens > 0) result["validation"] = json_of(report.validation);
  fmt::print("{}\n", json_text(result));
}

void print_summary(const PreparedTokens& prepared) {
  fmt::print("wrote {} tokens of {} documents to {}\n", prepared.tokens, prepared.documents,
             prepared.output.string());
}

void print_summary(const PrepareTextReport& report) {
  for (const std::string& line : report.text.first_bad_lines) fmt::print("left out: {}\n", line);
  if (report.text.bad_lines > std::ssize(report.text.first_bad_lines)) fmt::print("left out: …\n");
  print_summary(report.train);
  if (report.validation.tokens > 0) print_summary(report.validation);
  const std::int64_t tokens = report.train.tokens + report.validation.tokens;
  fmt::print("{} bytes of text, {:.2f} a token", report.text.bytes,
             static_cast<double>(report.text.bytes) / static_cast<double>(std::max<std::int64_t>(tokens, 1)));
  if (report.text.empty_documents > 0)
    fmt::print("; left {} empty documents out", report.text.empty_documents);
  if (report.text.bad_lines > 0) fmt::print("; left {} bad lines out", report.text.bad_lines);
  fmt::print("\n");
}

}  // namespace

int run_prepare_text(Arguments arguments) {
  Options options("bireme prepare text", "turns text into a dataset of tokens for language models");
  options
      .required_list("input", "FILE", ".txt or .jsonl (with the text under \"text\"), each also .gz; UTF-8")
      .required(
          "tokenizer", "T",
          "`byte`, a SentencePiece .model, a Hugging Face tokenizer.json, an RWKV vocabulary .txt, or a "
          "folder with one")
      .required("output", "DATASET", "folder to write; it keeps a copy of the tokenizer")
      .value("document-separator", "WHAT",
             "what separates the documents of a .txt file: none (it is one), blank-line or line", "none")
      .value("bad-lines", "POLICY",
             "stop at a line that is not UTF-8 or not the right JSON, or skip such lines and count them",
             "stop")
      .value("validation-share", "SHARE",
             "share of the documents, the last ones, for a dataset OUTPUT-validation; of a single document, "
             "its last part",
             "0")
      .value("shard-size", "TOKENS", "tokens of a shard", "16777216")
      .value("split", "NAME", "what the dataset is for, kept in its manifest", "train")
      .flag("force", "replace datasets that stand at the output")
      .example(
          "bireme prepare text --input shakespeare.txt --tokenizer byte --output data/shakespeare "
          "--validation-share 0.1")
      .example(
          "bireme prepare text --input books.jsonl.gz --tokenizer gpt_neox/tokenizer.json --output "
          "data/books");
  if (!options.parse(arguments)) return 0;
  // Under a launcher one process does the work, with all threads.
  if (launched_as().rank != 0) return 0;

  PrepareTextOptions what;
  for (const std::string& input : options.texts("input")) what.text.inputs.emplace_back(input);
  const std::string& separator = options.choice("document-separator", {"none", "blank-line", "line"});
  what.text.separator = separator == "none"         ? DocumentSeparator::none
                        : separator == "blank-line" ? DocumentSeparator::blank_line
                                                    : DocumentSeparator::line;
  what.text.skip_bad_lines = options.choice("bad-lines", {"stop", "skip"}) == "skip";
  what.tokenizer = open_tokenizer(options.text("tokenizer"));
  what.output = options.path("output");
  what.split = options.text("split");
  what.shard_size = options.integer("shard-size", 1, kMostTokens);
  what.validation_share = options.number("validation-share", 0, 1);
  what.replace = options.flag("force");
  TokenProgress progress("byte");
  what.progress = std::ref(progress);
  const PrepareTextReport report = prepare_text(what);
  progress.close();
  options.json() ? print_json(report) : print_summary(report);
  return 0;
}

int run_prepare_tokens(Arguments arguments) {
  Options options("bireme prepare tokens", "turns ready-made tokens into a dataset for language models");
  options
      .required("input", "FILE.h5",
                "HDF5 file with a dataset `tokens` of integers: [N], or [N, T] with a document in each row")
      .required("output", "DATASET", "folder to write")
      .value("vocab-size", "N", "ids are below it; one more than the largest unless given")
      .value("document-end", "ID", "the token that ends a document, where there is one")
      .value("shard-size", "TOKENS", "tokens of a shard", "16777216")
      .value("split", "NAME", "what the dataset is for, kept in its manifest", "train")
      .flag("force", "replace a dataset that stands at the output")
      .example(
          "bireme prepare tokens --input tokens.h5 --output data/tokens --vocab-size 50277 --document-end 0")
      .example("bireme prepare tokens --input rows.h5 --output data/rows --split validation");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  PrepareTokensOptions what{.input = options.path("input"),
                            .output = options.path("output"),
                            .split = options.text("split"),
                            .shard_size = options.integer("shard-size", 1, kMostTokens),
                            .replace = options.flag("force")};
  if (options.has("vocab-size")) what.vocabulary = options.integer("vocab-size", 1, kMostTokens - 1);
  if (options.has("document-end"))
    what.document_end = static_cast<std::int32_t>(options.integer("document-end", 0, kMostTokens - 2));
  TokenProgress progress("token");
  what.progress = std::ref(progress);
  const PreparedTokens prepared = prepare_tokens(what);
  progress.close();
  if (options.json())
    fmt::print("{}\n", json_text(json_of(prepared)));
  else
    print_summary(prepared);
  return 0;
}

}  // namespace bireme
