#include <spdlog/fmt/fmt.h>

#include <charconv>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/text/byte_trie.h"
#include "core/text/python_literal.h"
#include "core/text/tokenizer_files.h"

namespace bireme {

namespace {

struct VocabularyLine {
  std::int32_t id = 0;
  std::string bytes, literal;
};

std::optional<std::int32_t> parse_count(std::string_view text) {
  std::int32_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size() || value < 0) return {};
  return value;
}

/// A line `id literal length`: a Python string or bytes literal, and how many bytes it makes.
VocabularyLine parse_line(std::string_view line, const std::string& where) {
  const auto error = [&](const std::string& what) {
    return Error(ErrorKind::data, what, where, "give a vocabulary with lines such as `1234 'text' 4`");
  };
  const std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || last <= first) throw error("is not `id literal length`");
  VocabularyLine entry;
  const std::optional<std::int32_t> id = parse_count(line.substr(0, first)),
                                    length = parse_count(line.substr(last + 1));
  if (!id || *id >= kMostTokenIds) throw error(fmt::format("`{}` is not a token id", line.substr(0, first)));
  if (*id == 0) throw error("gives id 0, which is the document end, to a text");
  if (!length) throw error(fmt::format("`{}` is not a number of bytes", line.substr(last + 1)));
  entry.id = *id;
  entry.literal = std::string(line.substr(first + 1, last - first - 1));
  std::optional<std::string> bytes = parse_python_literal(entry.literal);
  if (!bytes) throw error("its text is not a Python string or bytes literal");
  entry.bytes = std::move(*bytes);
  if (entry.bytes.empty() || std::ssize(entry.bytes) != *length)
    throw error(fmt::format("the literal has {} bytes, the line says {}", entry.bytes.size(), *length));
  return entry;
}

/// The tokenizer of the RWKV "World" models: at each place of the text, the longest entry.
class RwkvVocabulary final : public Tokenizer {
 public:
  RwkvVocabulary(std::vector<TokenizerFile> files, const std::string& where)
      : Tokenizer("rwkv", std::move(files)) {
    special_.document_end = 0;
    std::vector<std::pair<std::string, std::int32_t>> entries = read(where);
    std::set<std::string_view> texts;
    for (const auto& [bytes, id] : entries)
      if (!texts.insert(bytes).second)
        throw Error(ErrorKind::data, fmt::format("token {} has the text of another", id), where,
                    "copy the vocabulary again");
    for (int byte = 0; byte < 256; ++byte)
      if (!texts.contains(std::string(1, static_cast<char>(byte))))
        throw Error(
            ErrorKind::data,
            fmt::format("no token stands for byte 0x{:02x} alone, so not every text can be written", byte),
            where, "give a whole vocabulary");
    texts.clear();
    trie_ = ByteTrie(std::move(entries));
  }

 private:
  std::vector<std::pair<std::string, std::int32_t>> read(const std::string& where) {
    std::vector<std::pair<std::string, std::int32_t>> entries;
    std::string_view rest = files().front().bytes;
    for (std::int64_t number = 1; !rest.empty(); ++number) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      VocabularyLine entry = parse_line(line, fmt::format("{}:{}", where, number));
      if (entry.id >= vocabulary_) {
        vocabulary_ = entry.id + 1;
        tokens_.resize(static_cast<std::size_t>(vocabulary_));
      }
      Token& token = tokens_[static_cast<std::size_t>(entry.id)];
      if (!token.bytes.empty())
        throw Error(ErrorKind::data, fmt::format("id {} stands there twice", entry.id),
                    fmt::format("{}:{}", where, number), "copy the vocabulary again");
      token = {entry.bytes, std::move(entry.literal)};
      entries.emplace_back(std::move(entry.bytes), entry.id);
    }
    if (entries.empty())
      throw Error(ErrorKind::data, "the vocabulary is empty", where, "give a whole vocabulary");
    return entries;
  }

  void append(std::string_view text, std::vector<std::int32_t>& ids) const override {
    ids.reserve(ids.size() + text.size() / 3);
    for (std::size_t position = 0; position < text.size();) {
      const ByteTrie::Match match = trie_.longest(text, position);  // every byte has an entry
      ids.push_back(match.value);
      position += match.length;
    }
  }
  std::string_view bytes_of(std::int32_t id) const override {
    return tokens_[static_cast<std::size_t>(id)].bytes;
  }
  std::string piece_of(std::int32_t id) const override {
    return id == 0 ? "<end>" : tokens_[static_cast<std::size_t>(id)].literal;
  }

  struct Token {
    std::string bytes, literal;
  };
  std::vector<Token> tokens_;  // by id
  ByteTrie trie_;
};

}  // namespace

std::shared_ptr<const Tokenizer> open_rwkv_vocabulary(const std::filesystem::path& text) {
  return std::make_shared<const RwkvVocabulary>(read_tokenizer_files(text, tokenizer_names::rwkv),
                                                text.string());
}

}  // namespace bireme
