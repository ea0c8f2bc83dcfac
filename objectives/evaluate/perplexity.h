#pragma once

#include <functional>
#include <vector>

#include "core/data/token_dataset.h"
#include "distributed/communicator.h"
#include "models/language_model.h"

namespace bireme {

struct PerplexityOptions {
  std::int64_t length = 256;  ///< tokens that a window holds
  /// Tokens between the starts of two windows. A window scores its last `stride` tokens (the first one all),
  /// so that each is predicted from at least length - stride tokens before it. length: every token is read
  /// once.
  std::int64_t stride = 256;
  std::int64_t windows = 0;      ///< at most, from the beginning; 0: all
  std::int64_t batch_size = 8;   ///< windows that a rank works on at a time
  bool documents_apart = false;  ///< state and attention do not cross document borders
  int parts = 1;  ///< of the window, by the number of tokens before the scored one, looked at one by one
  DType type = DType::f32;

  /// @throws Error (usage)
  void validate() const;
};

struct Perplexity {
  double log_loss = 0;      ///< mean over the scored tokens of -log p, natural logarithm
  double accuracy = 0;      ///< share of them that no token is more probable than
  std::int64_t tokens = 0;  ///< scored
  /// The same for each part of the window: for n parts of windows of T tokens, of the tokens with more than
  /// i·T/n and at most (i + 1)·T/n before them.
  std::vector<Perplexity> parts = {};
  double value() const;  ///< e^log_loss
};

/// How well a model predicts text, or the tokens that a dataset marks as targets. Windows are spread over
/// `ranks`; the result is the same for any number of them. Collective over `ranks`, and over the tensor ranks
/// of the model.
/// @throws Error (data) when the text has no token to predict, (usage) when windows would cut across the
/// sequences of a dataset that consists of such
Perplexity evaluate_perplexity(
    const Backend& backend, Communicator& ranks, const LanguageModel& model, const TokenDataset& text,
    const PerplexityOptions& options,
    const std::function<void(std::int64_t done, std::int64_t total)>& progress = {});

}  // namespace bireme
