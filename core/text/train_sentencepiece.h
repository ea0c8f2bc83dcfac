#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace bireme {

struct TrainSentencePieceOptions {
  std::int64_t vocabulary = 8000;  ///< pieces, with <unk>, <s>, </s> and the 256 bytes
  std::string type = "bpe";        ///< or "unigram"
  int threads = 1;
};

/// Learns a vocabulary from texts. Nothing of a text is lost by it: no normalisation, spaces as they are, and
/// bytes for characters that it does not hold; digits stand alone, as LLaMA has them.
/// @param next  the next text, nothing behind the last; called by one thread
/// @return      the model file's bytes
/// @throws Error (usage) for a vocabulary that the texts are too few or too many for, (data) without text,
/// and whatever `next` throws
std::string train_sentencepiece(const TrainSentencePieceOptions& options,
                                const std::function<std::optional<std::string>()>& next);

}  // namespace bireme
