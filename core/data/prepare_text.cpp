#include "core/data/prepare_text.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <optional>

#include "core/base/error.h"
#include "core/data/token_writer.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

// Text read before it is tokenized side by side: enough for all threads, little enough for any machine.
constexpr std::size_t kBlockBytes = 8 << 20;

/// Documents of a block become tokens, in parallel.
std::vector<std::vector<std::int32_t>> tokenize(const Tokenizer& tokenizer,
                                                const std::vector<std::string>& documents) {
  std::vector<std::vector<std::int32_t>> tokens(documents.size());
  std::vector<std::exception_ptr> failures(documents.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t i = 0; i < documents.size(); ++i) {
    try {
      tokens[i] = tokenizer.encode_start(documents[i]);
    } catch (...) {
      failures[i] = std::current_exception();
    }
  }
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  return tokens;
}

/// Documents of a single text: all but its last part, and that part; cut between characters.
std::pair<std::string, std::string> cut(const std::string& text, double validation_share) {
  auto at = static_cast<std::size_t>(std::floor(static_cast<double>(text.size()) * (1 - validation_share)));
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return {text.substr(0, at), text.substr(at)};
}

std::int64_t count_documents(const TextDocumentsOptions& options) {
  TextDocuments documents(options);
  while (documents.next()) {
  }
  return documents.report().documents;
}

fs::path without_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

/// Tokenizes block by block and gives each document to the dataset it belongs to.
class TextPreparation {
 public:
  explicit TextPreparation(const PrepareTextOptions& options) : options_(options) {
    const double share = options.validation_share;
    if (!(share >= 0 && share < 1))
      throw Error(ErrorKind::usage, fmt::format("--validation-share is {}", share), "",
                  "choose 0 or more, and less than 1");
    if (share > 0) {
      const std::int64_t documents = count_documents(options.text);
      is_cut_ = documents == 1;
      const auto held_out = std::max<std::int64_t>(1, std::llround(share * static_cast<double>(documents)));
      train_documents_ = documents - held_out;
      if (train_documents_ < 1 && !is_cut_)
        throw Error(
            ErrorKind::usage,
            fmt::format("--validation-share {} of {} documents leaves none to train on", share, documents),
            "", "choose a smaller share");
      validation_ = open(without_slash(options.output).string() + "-validation", "validation");
    }
    train_ = open(options.output, options.split);
  }

  PrepareTextReport run() {
    TextDocuments documents(options_.text);
    if (options_.progress) options_.progress(0, documents.bytes_total(), 0);  // the clock starts here
    std::vector<std::string> block;
    std::size_t block_bytes = 0;
    while (std::optional<std::string> document = documents.next()) {
      block_bytes += document->size();
      block.push_back(std::move(*document));
      if (block_bytes < kBlockBytes) continue;
      write(block);
      block.clear();
      block_bytes = 0;
      if (options_.progress) options_.progress(documents.bytes_done(), documents.bytes_total(), tokens());
    }
    write(block);
    if (options_.progress) options_.progress(documents.bytes_total(), documents.bytes_total(), tokens());

    PrepareTextReport report{.train = {}, .validation = {}, .text = documents.report()};
    report.text.empty_documents += empty_;
    report.text.documents -= empty_;
    if (validation_) report.validation = finish(*validation_);
    report.train = finish(*train_);
    return report;
  }

 private:
  struct Output {
    fs::path path;
    TokenWriter writer;
  };

  std::unique_ptr<Output> open(const fs::path& path, const std::string& split) const {
    const Tokenizer& tokenizer = *options_.tokenizer;
    return std::make_unique<Output>(
        Output{path, TokenWriter({.output = path,
                                  .split = split,
                                  .shard_size = options_.shard_size,
                                  .vocabulary = tokenizer.vocabulary(),
                                  .document_end = tokenizer.special().document_end,
                                  .tokenizer = options_.tokenizer,
                                  .replace = options_.replace})});
  }

  static PreparedTokens finish(Output& output) {
    output.writer.finish();
    return {output.path, output.writer.documents(), output.writer.tokens()};
  }

  std::int64_t tokens() const {
    return train_->writer.tokens() + (validation_ ? validation_->writer.tokens() : 0);
  }

  void write(std::vector<std::string>& block) {
    if (is_cut_ && !block.empty()) {
      auto [first, last] = cut(block.front(), options_.validation_share);
      block = {std::move(first), std::move(last)};
      train_documents_ = 1;
    }
    for (std::vector<std::int32_t>& document : tokenize(*options_.tokenizer, block)) {
      TokenWriter& writer = (validation_ && written_ >= train_documents_ ? *validation_ : *train_).writer;
      ++written_;
      if (document.empty()) {
        ++empty_;
        continue;
      }
      if (const std::int32_t end = options_.tokenizer->special().document_end; end >= 0)
        document.push_back(end);
      writer.append(document);
      writer.end_document();
    }
  }

  const PrepareTextOptions& options_;
  std::unique_ptr<Output> train_, validation_;  // the second only where it was asked for
  bool is_cut_ = false;                         // the only document goes to both
  std::int64_t train_documents_ = 0, written_ = 0, empty_ = 0;
};

}  // namespace

PrepareTextReport prepare_text(const PrepareTextOptions& options) { return TextPreparation(options).run(); }

}  // namespace bireme
