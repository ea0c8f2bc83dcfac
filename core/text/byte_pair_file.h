#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/text/pair_merges.h"

namespace bireme {

/// A token that is recognised as a whole in the text, before anything else.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool is_normalized = false;  ///< looked for in the normalised text, as it would look there
};

/// What a Hugging Face tokenizer.json with byte-level BPE holds.
struct BytePairFile {
  std::vector<std::string> tokens;  ///< by id, as the vocabulary writes them; empty where there is none
  std::vector<bool> is_added;       ///< by id
  std::vector<PairMerge> merges;    ///< by rank
  std::vector<AddedToken> added;
  std::vector<std::string> normal_forms;  ///< "NFC" …, applied one after the other
  std::vector<std::string> patterns;      ///< each cuts what the one before left
  bool adds_prefix_space = false;
  bool prefers_whole_words = false;  ///< a word that is a token is one, whatever the merges say
  std::optional<std::string> begin;  ///< the token that its template puts first
};

/// Parses and checks it. What is not implemented is refused by name, since to leave it out would change ids
/// in silence.
/// @throws Error (data)
BytePairFile parse_byte_pair_file(const std::string& json, const std::string& where);

}  // namespace bireme
