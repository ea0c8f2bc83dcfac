#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/data/text_documents.h"
#include "core/text/tokenizer.h"

namespace bireme {

struct PrepareTextOptions {
  TextDocumentsOptions text;
  std::filesystem::path output = {};
  std::string split = "train";
  std::shared_ptr<const Tokenizer> tokenizer = {};
  std::int64_t shard_size = 1 << 24;  ///< tokens of a shard
  /// Share of the documents, the last ones, that go to a dataset `OUTPUT-validation`; of a single document,
  /// its last part.
  double validation_share = 0;
  bool replace = false;  ///< datasets that stand there make way
  /// Bytes of the input, and tokens made of them.
  std::function<void(std::int64_t done, std::int64_t total, std::int64_t tokens)> progress = {};
};

struct PreparedTokens {
  std::filesystem::path output;
  std::int64_t documents = 0, tokens = 0;
};

struct PrepareTextReport {
  PreparedTokens train, validation;  ///< the second without a name where none was asked for
  TextDocumentsReport text;
};

/// Turns text into a dataset of tokens: documents are tokenized in parallel and written in their order, each
/// begun as the tokenizer begins a text and ended by its document end. The result does not depend on the
/// number of threads. Documents that have no token count as empty.
/// @throws Error (data) as TextDocuments, or when nothing is left, (usage) for an output in use, (checkpoint)
/// for a full disk
PrepareTextReport prepare_text(const PrepareTextOptions& options);

struct PrepareTokensOptions {
  std::filesystem::path input;  ///< HDF5 with a dataset `tokens`, [N] or [N, T], of integers
  std::filesystem::path output;
  std::string split = "train";
  std::int64_t shard_size = 1 << 24;
  std::int64_t vocabulary = 0;     ///< 0: one more than the largest id
  std::int32_t document_end = -1;  ///< the token that ends a document, where there is one
  bool replace = false;
  std::function<void(std::int64_t done, std::int64_t total, std::int64_t tokens)> progress = {};
};

/// Turns ready-made tokens into a dataset. A document ends behind each `document_end`, at the end of each row
/// of [N, T], and at the end.
PreparedTokens prepare_tokens(const PrepareTokensOptions& options);

}  // namespace bireme
