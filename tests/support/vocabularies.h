#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/text/byte_symbols.h"

namespace bireme::test {

/// A tokenizer.json with the 256 byte symbols as ids 0 … 255 in the order of the bytes, the merges after them
/// in the order given, and the added tokens behind those. Merges are written in byte symbols.
struct BytePairVocabulary {
  std::vector<std::pair<std::string, std::string>> merges;
  nlohmann::json added = nlohmann::json::array();  ///< without ids
  nlohmann::json normalizer = {{"type", "NFC"}};
  nlohmann::json pre_tokenizer = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  nlohmann::json decoder = {{"type", "ByteLevel"}};
  nlohmann::json post_processor = nullptr;

  nlohmann::json json() const {
    const ByteSymbols symbols;
    nlohmann::json vocabulary = nlohmann::json::object(), list = nlohmann::json::array(), tokens = added;
    for (int byte = 0; byte < 256; ++byte)
      vocabulary[symbols.symbol(static_cast<unsigned char>(byte))] = byte;
    for (const auto& [left, right] : merges) {
      const int id = static_cast<int>(vocabulary.size());
      vocabulary[left + right] = id;
      list.push_back(left + " " + right);
    }
    int id = static_cast<int>(vocabulary.size());
    for (nlohmann::json& token : tokens) token["id"] = id++;
    return {{"added_tokens", tokens},
            {"normalizer", normalizer},
            {"pre_tokenizer", pre_tokenizer},
            {"decoder", decoder},
            {"post_processor", post_processor},
            {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
  }
};

/// An RWKV vocabulary: ids 1 … 256 are the bytes, then the literals given, each with the bytes it makes.
inline std::string rwkv_vocabulary(const std::vector<std::pair<std::string, int>>& literals,
                                   const std::string& line_end = "\n") {
  std::string text;
  const char* digits = "0123456789abcdef";
  int id = 1;
  for (int byte = 0; byte < 256; ++byte)
    text += std::to_string(id++) + " b'\\x" + digits[byte / 16] + digits[byte % 16] + "' 1" + line_end;
  for (const auto& [literal, bytes] : literals)
    text += std::to_string(id++) + " " + literal + " " + std::to_string(bytes) + line_end;
  return text;
}

}  // namespace bireme::test
