#include <sentencepiece_processor.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>

#include "core/base/error.h"
#include "core/text/sentencepiece_model.h"
#include "core/text/tokenizer_files.h"
#include "core/text/word_cache.h"

namespace bireme {

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";      // U+2581, how a piece writes a space
constexpr std::string_view kUnknown = " \xE2\x81\x87 ";  // what decoding shows for text that had no piece

bool is_visible(char c) { return c > 0x20 && c < 0x7F; }

/// Spaces of a piece as spaces.
std::string unescaped(std::string_view piece) {
  std::string text;
  for (std::size_t i = 0; i < piece.size();) {
    const bool is_space = piece.substr(i).starts_with(kSpace);
    text += is_space ? ' ' : piece[i];
    i += is_space ? kSpace.size() : 1;
  }
  return text;
}

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(std::vector<TokenizerFile> files, const std::string& where)
      : Tokenizer("sentencepiece", std::move(files)) {
    const std::string& model = this->files().front().bytes;
    if (const auto status = processor_.LoadFromSerializedProto(model); !status.ok() || model.empty())
      throw Error(ErrorKind::data, "is not a SentencePiece model", where,
                  "copy it again, or train one with `bireme tokenizer train`");
    const SentencePieceNormalizer normalizer = read_sentencepiece_normalizer(model);
    drops_first_space_ =
        (normalizer.adds_dummy_prefix || normalizer.removes_extra_whitespace) && !normalizer.has_space_at_end;
    vocabulary_ = processor_.GetPieceSize();
    for (std::int32_t id = 0; id < vocabulary_; ++id) bytes_.push_back(text_of(id));
    special_ = {.document_end = processor_.eos_id(),
                .begin = processor_.bos_id(),
                .padding = processor_.pad_id(),
                .adds_begin = read_tokenizer_config(this->files(), where).adds_begin.value_or(false)};
    words_are_apart_ = words_are_apart(normalizer);
  }

 private:
  std::string text_of(std::int32_t id) const {
    const std::string& piece = processor_.IdToPiece(id);
    if (processor_.IsControl(id)) return {};
    if (processor_.IsUnknown(id)) return std::string(kUnknown);
    if (processor_.IsByte(id) && piece.size() == 6) {  // "<0x0A>"
      int byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      return {static_cast<char>(byte)};
    }
    return unescaped(piece);
  }

  /// True when a text can be cut before the space of a word and its parts encoded alone: no piece reaches
  /// from a word over the space after it, so no merge does, and the space that each part gets in front is the
  /// one that was there.
  bool words_are_apart(const SentencePieceNormalizer& normalizer) const {
    if (!normalizer.is_byte_pair || !normalizer.adds_dummy_prefix || !normalizer.escapes_whitespace ||
        normalizer.has_space_at_end || normalizer.has_own_rules)
      return false;
    for (std::int32_t id = 0; id < vocabulary_; ++id) {
      std::string_view piece = processor_.IdToPiece(id);
      while (piece.starts_with(kSpace)) piece.remove_prefix(kSpace.size());
      if (piece.find(kSpace) != std::string_view::npos || piece.find(' ') != std::string_view::npos)
        return false;
    }
    // A space that has no piece would join the unknown text before and after it to one unknown token.
    return processor_.PieceToId(std::string(kSpace)) != processor_.unk_id();
  }

  void append(std::string_view text, std::vector<std::int32_t>& ids) const override {
    if (!words_are_apart_) return append_whole(text, ids);
    const WordCachePool::Lease cache(caches_);
    std::size_t begin = 0;
    while (begin <= text.size()) {
      std::size_t end = begin;
      // A cut needs a plain character on both sides, which no rule of normalisation joins with a space.
      for (;; ++end) {
        end = std::min(text.find(' ', end), text.size());
        if (end == text.size()) break;
        if (end > begin && is_visible(text[end - 1]) && end + 1 < text.size() &&
            (is_visible(text[end + 1]) || text[end + 1] == ' '))
          break;
      }
      append_word(text.substr(begin, end - begin), *cache, ids);
      begin = end + 1;
    }
  }

  void append_word(std::string_view word, WordCache& cache, std::vector<std::int32_t>& ids) const {
    if (word.empty()) return;
    std::span<const std::int32_t> known = cache.find(word);
    const std::size_t before = ids.size();
    if (known.empty()) {
      append_whole(word, ids);
      cache.keep(word, std::span(ids).subspan(before));
    } else {
      ids.insert(ids.end(), known.begin(), known.end());
    }
  }

  void append_whole(std::string_view text, std::vector<std::int32_t>& ids) const {
    std::vector<int> more;
    if (const auto status = processor_.Encode(text, &more); !status.ok())
      throw Error(ErrorKind::data, fmt::format("SentencePiece cannot encode a text ({})", status.message()),
                  files().front().name, "use a whole model");
    ids.insert(ids.end(), more.begin(), more.end());
  }

  std::string_view bytes_of(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }
  std::string piece_of(std::int32_t id) const override { return processor_.IdToPiece(id); }

  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::string> bytes_;  // by id
  bool words_are_apart_ = false;
  mutable WordCachePool caches_;
};

}  // namespace

std::shared_ptr<const Tokenizer> open_sentencepiece(const std::filesystem::path& model) {
  return std::make_shared<const SentencePiece>(read_tokenizer_files(model, tokenizer_names::sentencepiece),
                                               model.string());
}

}  // namespace bireme
