#include <spdlog/fmt/fmt.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "core/base/error.h"
#include "core/text/byte_pair_file.h"
#include "core/text/byte_symbols.h"
#include "core/text/byte_trie.h"
#include "core/text/split_pattern.h"
#include "core/text/tokenizer_files.h"
#include "core/text/word_cache.h"

namespace bireme {

namespace {

/// Normal forms of Unicode, one after the other.
class Normalizer {
 public:
  Normalizer() = default;
  Normalizer(const std::vector<std::string>& forms, const std::string& where) {
    for (const std::string& form : forms) {
      UErrorCode status = U_ZERO_ERROR;
      const bool is_compatible = form.starts_with("NFK"), is_composed = form.ends_with('C');
      steps_.push_back(icu::Normalizer2::getInstance(
          nullptr, is_compatible ? "nfkc" : "nfc", is_composed ? UNORM2_COMPOSE : UNORM2_DECOMPOSE, status));
      if (U_FAILURE(status))
        throw Error(ErrorKind::other, fmt::format("ICU cannot give {} ({})", form, u_errorName(status)),
                    where, "install ICU's data");
    }
  }

  /// The text itself where it is normal already, as most is; else its normal form, kept in `room`.
  std::string_view apply(std::string_view text, std::string& room) const {
    const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
    if (steps_.empty() || std::all_of(text.begin(), text.end(), is_ascii)) return text;
    for (const icu::Normalizer2* step : steps_) {
      UErrorCode status = U_ZERO_ERROR;
      const icu::StringPiece input(text.data(), static_cast<std::int32_t>(text.size()));
      if (step->isNormalizedUTF8(input, status)) continue;
      std::string normal;
      icu::StringByteSink<std::string> sink(&normal);
      step->normalizeUTF8(0, input, sink, nullptr, status);
      if (U_FAILURE(status))
        throw Error(ErrorKind::data, fmt::format("a text cannot be normalized ({})", u_errorName(status)),
                    "text to tokenize", "give text in smaller documents");
      room = std::move(normal);
      text = room;
    }
    return text;
  }

 private:
  std::vector<const icu::Normalizer2*> steps_;  // owned by ICU
};

/// False for the bytes that no UTF-8 text holds, which vocabularies made from texts often lack.
bool is_in_utf8(int byte) { return byte < 0xC0 || (byte > 0xC1 && byte < 0xF5); }

/// Byte-level byte-pair encoding as in Hugging Face's tokenizers: added tokens are taken out, the rest is
/// normalised, cut into words, and the bytes of each word are merged.
class BytePair final : public Tokenizer {
 public:
  BytePair(std::vector<TokenizerFile> files, const std::string& where)
      : Tokenizer("byte_pair", std::move(files)) {
    BytePairFile file = parse_byte_pair_file(this->files().front().bytes, where);
    vocabulary_ = std::ssize(file.tokens);
    prefers_whole_words_ = file.prefers_whole_words;
    adds_prefix_space_ = file.adds_prefix_space;
    normalizer_ = Normalizer(file.normal_forms, where);
    for (const std::string& pattern : file.patterns) patterns_.emplace_back(pattern);
    merges_ = PairMerges(file.merges);
    tokens_ = std::move(file.tokens);
    take_vocabulary(file.is_added, where);
    take_added(file.added);
    take_special(file, where);
  }

 private:
  void take_vocabulary(const std::vector<bool>& is_added, const std::string& where) {
    const ByteSymbols symbols;
    byte_ids_.fill(-1);
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const std::optional<std::string> bytes = is_added[id] ? std::nullopt : symbols.bytes(tokens_[id]);
      bytes_.push_back(bytes.value_or(tokens_[id]));
      if (!bytes || bytes->empty()) continue;
      if (bytes->size() == 1)
        byte_ids_[static_cast<unsigned char>(bytes->front())] = static_cast<std::int32_t>(id);
      if (prefers_whole_words_) words_.emplace(*bytes, static_cast<std::int32_t>(id));
    }
    for (int byte = 0; byte < 256; ++byte)
      if (is_in_utf8(byte) && byte_ids_[static_cast<std::size_t>(byte)] < 0)
        throw Error(
            ErrorKind::data,
            fmt::format("no token stands for byte 0x{:02x} alone, so not every text can be written", byte),
            where, "use a tokenizer.json with a whole byte-level vocabulary");
  }

  void take_added(const std::vector<AddedToken>& added) {
    std::vector<std::pair<std::string, std::int32_t>> raw, normal;
    for (const AddedToken& token : added) {
      std::string room;
      auto& list = token.is_normalized ? normal : raw;
      const std::string content(token.is_normalized ? normalizer_.apply(token.content, room) : token.content);
      if (std::none_of(list.begin(), list.end(), [&](const auto& other) { return other.first == content; }))
        list.emplace_back(content, token.id);
    }
    added_ = ByteTrie(std::move(raw));
    added_normal_ = ByteTrie(std::move(normal));
  }

  /// What the file or its config says, else the names that published models use.
  void take_special(const BytePairFile& file, const std::string& where) {
    const TokenizerConfig config = read_tokenizer_config(files(), where);
    const auto id_of = [&](const std::string& name) -> std::int32_t {
      for (const AddedToken& token : file.added)
        if (token.content == name) return token.id;
      return -1;
    };
    const auto first_of = [&](const std::optional<std::string>& given,
                              std::initializer_list<const char*> usual) {
      if (given)
        if (const std::int32_t id = id_of(*given); id >= 0) return id;
      for (const char* name : usual)
        if (const std::int32_t id = id_of(name); id >= 0) return id;
      return std::int32_t{-1};
    };
    special_ = {.document_end = first_of(config.end, {"<|endoftext|>", "<|end_of_text|>", "</s>"}),
                .begin = first_of(file.begin ? file.begin : config.begin, {"<|begin_of_text|>", "<s>"}),
                .padding = first_of(config.padding, {"<|padding|>", "<pad>"}),
                .adds_begin = config.adds_begin.value_or(file.begin.has_value())};
  }

  void append(std::string_view text, std::vector<std::int32_t>& ids) const override {
    // A cache, and the room that the words of one text share.
    const WordCachePool::Lease cache(caches_);
    Work work{*cache, {}, {}, {}, {}, ids};
    apart(added_, text, work, [&](std::string_view part) {
      apart(added_normal_, normalizer_.apply(part, work.normal), work,
            [&](std::string_view plain) { append_plain(plain, work); });
    });
  }

  struct Work {
    WordCache& cache;
    std::string normal, prefixed;
    std::vector<std::size_t> ends, parts;
    std::vector<std::int32_t>& ids;
  };

  /// Takes the added tokens out of a text and gives the parts between them to `rest`.
  template <class Rest>
  static void apart(const ByteTrie& added, std::string_view text, Work& work, const Rest& rest) {
    for (std::size_t begin = 0; begin < text.size();) {
      const auto [place, match] = added.find(text, begin);
      if (place > begin) rest(text.substr(begin, place - begin));
      if (match.value >= 0) work.ids.push_back(match.value);
      begin = place + match.length;
    }
  }

  void append_plain(std::string_view text, Work& work) const {
    if (adds_prefix_space_ && !text.starts_with(' ')) {
      work.prefixed.assign(1, ' ').append(text);
      text = work.prefixed;
    }
    work.ends.assign(1, text.size());
    for (const SplitPattern& pattern : patterns_) {
      work.parts.clear();
      std::size_t begin = 0;
      for (const std::size_t end : work.ends) {
        const std::size_t first = work.parts.size();
        pattern.split(text.substr(begin, end - begin), work.parts);
        for (std::size_t i = first; i < work.parts.size(); ++i) work.parts[i] += begin;
        begin = end;
      }
      std::swap(work.ends, work.parts);
    }
    std::size_t begin = 0;
    for (const std::size_t end : work.ends) {
      append_word(text.substr(begin, end - begin), work);
      begin = end;
    }
  }

  void append_word(std::string_view word, Work& work) const {
    if (const std::span<const std::int32_t> known = work.cache.find(word); !known.empty()) {
      work.ids.insert(work.ids.end(), known.begin(), known.end());
      return;
    }
    const std::vector<std::int32_t> ids = encode_word(word);
    work.cache.keep(word, ids);
    work.ids.insert(work.ids.end(), ids.begin(), ids.end());
  }

  std::vector<std::int32_t> encode_word(std::string_view word) const {
    if (prefers_whole_words_)
      if (const auto found = words_.find(std::string(word)); found != words_.end()) return {found->second};
    std::vector<std::int32_t> ids;
    ids.reserve(word.size());
    for (const char byte : word) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    merges_.apply(ids);
    return ids;
  }

  std::string_view bytes_of(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }
  std::string piece_of(std::int32_t id) const override { return tokens_[static_cast<std::size_t>(id)]; }

  std::vector<std::string> tokens_, bytes_;  // by id
  std::array<std::int32_t, 256> byte_ids_{};
  std::unordered_map<std::string, std::int32_t> words_;
  bool prefers_whole_words_ = false, adds_prefix_space_ = false;
  Normalizer normalizer_;
  std::vector<SplitPattern> patterns_;
  PairMerges merges_;
  ByteTrie added_, added_normal_;
  mutable WordCachePool caches_;
};

}  // namespace

std::shared_ptr<const Tokenizer> open_byte_pair(const std::filesystem::path& json) {
  return std::make_shared<const BytePair>(read_tokenizer_files(json, tokenizer_names::byte_pair),
                                          json.string());
}

}  // namespace bireme
