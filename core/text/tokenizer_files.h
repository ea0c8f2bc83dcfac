#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"

// What open_tokenizer() chooses from: one function a kind, each in the file of its name.
namespace bireme {

std::shared_ptr<const Tokenizer> make_byte_tokenizer();
std::shared_ptr<const Tokenizer> open_sentencepiece(const std::filesystem::path& model);
std::shared_ptr<const Tokenizer> open_byte_pair(const std::filesystem::path& json);
std::shared_ptr<const Tokenizer> open_rwkv_vocabulary(const std::filesystem::path& text);

/// A vocabulary with an id of this size or above is taken for a damaged one.
inline constexpr std::int32_t kMostTokenIds = 1 << 22;

/// The names under which save() writes the files, and a folder is searched for them.
namespace tokenizer_names {
inline constexpr const char *byte = "byte_tokenizer.json", *sentencepiece = "tokenizer.model",
                            *byte_pair = "tokenizer.json", *rwkv = "rwkv_vocab.txt",
                            *config = "tokenizer_config.json";
}  // namespace tokenizer_names

/// The main file under the name that it is saved with, then tokenizer_config.json where one lies beside it.
std::vector<TokenizerFile> read_tokenizer_files(const std::filesystem::path& main, const char* name);

/// What tokenizer_config.json says about special tokens, where it is among the files and says it.
struct TokenizerConfig {
  std::optional<std::string> begin, end, padding;  // as they are written in the vocabulary
  std::optional<bool> adds_begin;
};
/// @throws Error (data) when it is no JSON object
TokenizerConfig read_tokenizer_config(const std::vector<TokenizerFile>& files, const std::string& where);

}  // namespace bireme
