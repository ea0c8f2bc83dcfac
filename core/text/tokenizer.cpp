#include "core/text/tokenizer.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/text/tokenizer_files.h"
#include "core/text/utf8.h"

namespace bireme {

namespace fs = std::filesystem;

Tokenizer::Tokenizer(std::string kind, std::vector<TokenizerFile> files)
    : kind_(std::move(kind)), files_(std::move(files)) {
  fingerprint_ = checksum_bytes(files_.front().bytes);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  if (const std::size_t valid = valid_utf8(text); valid < text.size())
    throw Error(
        ErrorKind::data,
        fmt::format("byte {} (0x{:02x}) is not UTF-8", valid, static_cast<unsigned char>(text[valid])),
        "text to tokenize", "convert the text to UTF-8");
  if (!text.empty()) append(text, ids);
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_start(std::string_view text) const {
  std::vector<std::int32_t> ids = encode(text);
  if (special_.adds_begin && special_.begin >= 0) ids.insert(ids.begin(), special_.begin);
  return ids;
}

void Tokenizer::check(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_)
    throw Error(ErrorKind::data,
                fmt::format("token id {} is beyond the vocabulary of {} ids", id, vocabulary_),
                kind_ + " tokenizer", "use the tokenizer that the ids were made with");
}

std::string_view Tokenizer::bytes(std::int32_t id) const {
  check(id);
  return bytes_of(id);
}

std::string Tokenizer::piece(std::int32_t id) const {
  check(id);
  return piece_of(id);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += bytes(id);
  if (drops_first_space_ && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

void Tokenizer::save(const fs::path& folder) const {
  for (const TokenizerFile& file : files_) write_file_atomically(folder / file.name, file.bytes);
}

std::string TokenStream::push(std::int32_t id) {
  waiting_ += tokenizer_.bytes(id);
  if (drops_space_ && !waiting_.empty()) {
    if (waiting_.starts_with(' ')) waiting_.erase(0, 1);
    drops_space_ = false;
  }
  std::string text;
  std::string_view rest = waiting_;
  for (;;) {
    const std::size_t whole = valid_utf8(rest);
    text += rest.substr(0, whole);
    rest.remove_prefix(whole);
    if (rest.empty() || is_cut_utf8(rest)) break;
    text += kReplacementCharacter;
    rest.remove_prefix(1);
  }
  waiting_ = std::string(rest);
  return text;
}

std::string TokenStream::finish() {
  const bool is_cut = !waiting_.empty();
  waiting_.clear();
  return is_cut ? std::string(kReplacementCharacter) : std::string();
}

std::vector<TokenizerFile> read_tokenizer_files(const fs::path& main, const char* name) {
  constexpr std::int64_t kLargest = 256 << 20;
  std::vector<TokenizerFile> files{{name, read_file(main, kLargest, ErrorKind::data)}};
  const fs::path config = main.parent_path() / tokenizer_names::config;
  if (fs::is_regular_file(config))
    files.push_back({tokenizer_names::config, read_file(config, kLargest, ErrorKind::data)});
  return files;
}

TokenizerConfig read_tokenizer_config(const std::vector<TokenizerFile>& files, const std::string& where) {
  using Json = nlohmann::json;
  TokenizerConfig config;
  for (const TokenizerFile& file : files) {
    if (file.name != tokenizer_names::config) continue;
    const Json json = try_parse_json(file.bytes);
    if (!json.is_object())
      throw Error(ErrorKind::data, fmt::format("the {} beside it is not a JSON object", file.name), where,
                  "copy the tokenizer's folder again, or remove that file");
    // A token is written as its text, or as an object with its text and how it is matched.
    const auto token = [&json](const char* key) -> std::optional<std::string> {
      const auto found = json.find(key);
      if (found == json.end()) return {};
      if (found->is_string()) return found->get<std::string>();
      if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
        return (*found)["content"].get<std::string>();
      return {};
    };
    config.begin = token("bos_token");
    config.end = token("eos_token");
    config.padding = token("pad_token");
    if (const auto adds = json.find("add_bos_token"); adds != json.end() && adds->is_boolean())
      config.adds_begin = adds->get<bool>();
  }
  return config;
}

namespace {

constexpr const char* kChoices =
    "give `byte`, a SentencePiece .model, a Hugging Face tokenizer.json, an RWKV vocabulary .txt, or a "
    "folder "
    "with one of these";

class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() : Tokenizer("byte", {{tokenizer_names::byte, "{\"kind\": \"byte\"}\n"}}) {
    vocabulary_ = 257;
    special_.document_end = 256;
    for (int i = 0; i < 256; ++i) bytes_ += static_cast<char>(i);
  }

 private:
  void append(std::string_view text, std::vector<std::int32_t>& ids) const override {
    ids.reserve(ids.size() + text.size());
    for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  }
  std::string_view bytes_of(std::int32_t id) const override {
    return id == 256 ? std::string_view{} : std::string_view(bytes_).substr(static_cast<std::size_t>(id), 1);
  }
  std::string piece_of(std::int32_t id) const override {
    if (id == 256) return "<end>";
    return id > 0x20 && id < 0x7F ? std::string(1, static_cast<char>(id)) : fmt::format("<0x{:02X}>", id);
  }

  std::string bytes_;
};

/// The main file of the tokenizer that a folder holds; an empty path where there is none.
fs::path find_in_folder(const fs::path& folder, bool looks_below = true) {
  for (const char* name : {tokenizer_names::sentencepiece, tokenizer_names::byte_pair, tokenizer_names::byte})
    if (fs::exists(folder / name)) return folder / name;
  fs::path vocabulary;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("rwkv_vocab") && name.ends_with(".txt"))
      vocabulary = std::max(vocabulary, entry.path());  // their names end in a date
  }
  if (vocabulary.empty() && looks_below && fs::is_directory(folder / "tokenizer"))
    return find_in_folder(folder / "tokenizer", false);
  return vocabulary;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_byte_tokenizer() { return std::make_shared<const ByteTokenizer>(); }

std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& what) {
  if (what == "byte") return make_byte_tokenizer();
  const fs::path path = what;
  if (!fs::exists(path)) throw Error(ErrorKind::data, "there is no such tokenizer", what, kChoices);
  if (fs::is_directory(path)) {
    const fs::path found = find_in_folder(path);
    if (found.empty()) throw Error(ErrorKind::data, "the folder holds no tokenizer", what, kChoices);
    return open_tokenizer(found.string());
  }
  const std::string extension = path.extension().string();
  if (extension == ".model") return open_sentencepiece(path);
  if (extension == ".json")
    return path.filename() == tokenizer_names::byte ? make_byte_tokenizer() : open_byte_pair(path);
  if (extension == ".txt") return open_rwkv_vocabulary(path);
  throw Error(ErrorKind::data, "its name is not that of a tokenizer", what, kChoices);
}

bool holds_tokenizer(const fs::path& path) {
  if (fs::is_directory(path)) return !find_in_folder(path).empty();
  const std::string extension = path.extension().string();
  return extension == ".model" || extension == ".json" || extension == ".txt";
}

}  // namespace bireme
