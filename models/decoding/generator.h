#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "models/decoding/token_sampler.h"
#include "models/language_model.h"

namespace bireme {

using TokenList = std::vector<std::int32_t>;

struct GenerateOptions {
  std::int64_t max_tokens = 100;  ///< of each sequence
  SamplingOptions sampling;
  TokenList stop_tokens;  ///< a sequence ends at one of these, which is not part of it
  /// Numbers that key the random draws of each sequence, so that they do not depend on what else is in the
  /// batch; empty: 0, 1, ….
  std::vector<std::int64_t> keys = {};
};

/// Continues prompts token by token. One of a single sequence keeps the model's state between calls, so that
/// a conversation goes on without reading again what was said; one of several is called once.
class Generator {
 public:
  /// @param model      outlives the generator
  /// @param sequences  that are continued side by side
  /// @param capacity   tokens of each sequence that are read or written at most
  Generator(const Backend& backend, const LanguageModel& model, std::int64_t sequences, std::int64_t capacity,
            DType type);

  /// Called with each new token as it is chosen; false ends that sequence.
  using OnToken = std::function<bool(std::int64_t sequence, std::int32_t token)>;
  /// Reads one prompt for each sequence, then chooses tokens until all have ended. Prompts need not be of one
  /// length: all are read up to the shortest at once, the rest of the others beside the first new tokens. The
  /// last token chosen is read by the next call.
  /// @throws Error (usage) when a prompt is empty at the start, prompt and new tokens exceed the capacity, or
  /// several sequences are to go on
  std::vector<TokenList> generate(const std::vector<TokenList>& prompts, const GenerateOptions& options,
                                  const OnToken& on_token = {});

  const DecodingState& state() const { return *state_; }

 private:
  /// Logits [B, V] after the last of these tokens.
  Tensor read(const std::vector<TokenList>& columns, std::size_t begin, std::size_t end);

  const Backend& backend_;
  const LanguageModel& model_;
  std::int64_t sequences_, capacity_;
  std::unique_ptr<DecodingState> state_;
  std::vector<TokenList> seen_;     // read so far, and what the state has not read yet
  std::vector<TokenList> pending_;  // chosen, but not read: at most one token each
};

}  // namespace bireme
