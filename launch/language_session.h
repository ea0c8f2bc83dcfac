#pragma once

#include <memory>
#include <string>

#include "core/text/tokenizer.h"
#include "launch/job.h"
#include "launch/options.h"
#include "models/published/language_model.h"

namespace bireme {

/// A trained or published language model at work, with its tokenizer: what `generate`, `score` and
/// `evaluate perplexity` share. Every rank holds the whole model, or --tensor of them share it.
class LanguageSession {
 public:
  /// Declares --model, --precision and --tokenizer.
  static Options& declare(Options& options);
  /// Declares --tensor as well.
  static Options& declare_with_tensor(Options& options);
  LanguageSession(const Options& options, Communicator& world);
  /// For work that is not spread over ranks; before a session is made, which all ranks make together.
  /// @throws Error (usage) when there are several
  static void require_one_rank(const Communicator& world, const std::string& command);

  /// Ranks that hold the same part of the model and see other text, and those that share a model.
  Communicator& data() const { return context_.mesh->data(); }
  Communicator& tensor() const { return context_.mesh->tensor(); }
  /// What --model names: of a run, the checkpoint that was its newest when the session was made.
  const std::string& folder() const { return folder_; }
  const Backend& backend() const { return *context_.backend; }
  const LanguageModel& model() const { return published_->model(); }
  const PublishedLanguageModel& published() const { return *published_; }
  DType type() const { return context_.type; }
  /// @throws Error (usage) when neither the folder nor --tokenizer has one
  const Tokenizer& tokenizer() const;
  /// @throws Error (data) when the text has tokens that the model does not know
  void require_vocabulary(std::int64_t vocabulary, const std::string& where) const;

 private:
  std::string folder_;
  Context context_;
  std::unique_ptr<PublishedLanguageModel> published_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace bireme
