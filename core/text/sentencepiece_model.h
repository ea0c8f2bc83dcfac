#pragma once

#include <string>
#include <string_view>

namespace bireme {

/// What a SentencePiece model file says about how text is prepared; the library does not show it.
struct SentencePieceNormalizer {
  std::string name;
  bool adds_dummy_prefix = true;  ///< a space before the text, which decoding takes away
  bool removes_extra_whitespace = true;
  bool escapes_whitespace = true;  ///< spaces become U+2581
  bool has_own_rules = false;      ///< not only those that its name stands for
  bool is_byte_pair = false;       ///< merges pairs, where unigram models search the best path
  bool has_space_at_end = false;   ///< words are written with the space after them
};

/// Reads the few fields from the serialized `ModelProto`, which must be one that the library has taken.
SentencePieceNormalizer read_sentencepiece_normalizer(std::string_view model);

}  // namespace bireme
