#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// Tokens that no text turns into by itself; -1 where a tokenizer has none.
struct SpecialTokens {
  std::int32_t document_end = -1;  ///< separates documents; a model that predicts it is done
  std::int32_t begin = -1;         ///< stands before a text where `adds_begin` says so
  std::int32_t padding = -1;
  bool adds_begin = false;
};

/// A file that a tokenizer is made of, kept so that it can go wherever its models and datasets go.
struct TokenizerFile {
  std::string name;
  std::string bytes;
};

/// Turns text into token ids and back. Immutable: any number of threads may use one at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// "byte", "sentencepiece", "byte_pair" or "rwkv".
  const std::string& kind() const { return kind_; }
  /// Ids are 0 … vocabulary - 1; some of these may stand for nothing. A model may have more rows.
  std::int64_t vocabulary() const { return vocabulary_; }
  const SpecialTokens& special() const { return special_; }
  /// Of the file that decides which ids a text gets: XXH3-128. Datasets and checkpoints compare it.
  const std::string& fingerprint() const { return fingerprint_; }

  /// The ids of a text, without begin and document end. An empty text has none.
  /// @throws Error (data) with the offset of the first byte that is not UTF-8
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The same for the beginning of a document: with the begin token where the tokenizer adds one.
  std::vector<std::int32_t> encode_start(std::string_view text) const;

  /// The bytes of a text; not UTF-8 when the ids cut a character. @throws Error (data) for an id beyond the
  /// vocabulary
  std::string decode(std::span<const std::int32_t> ids) const;
  /// What an id stands for inside a text; empty for tokens that are not text.
  /// @throws Error (data) for an id beyond the vocabulary
  std::string_view bytes(std::int32_t id) const;
  /// How its vocabulary writes an id, for tables and messages. @throws Error (data) as bytes()
  std::string piece(std::int32_t id) const;
  /// True when the vocabulary writes a word with the space before it and drops that of a text's first.
  bool drops_first_space() const { return drops_first_space_; }

  /// Writes its files into a folder, which open_tokenizer() then takes. @throws Error (checkpoint)
  void save(const std::filesystem::path& folder) const;
  const std::vector<TokenizerFile>& files() const { return files_; }

 protected:
  /// Takes the files; the first is the one that the fingerprint is made of.
  Tokenizer(std::string kind, std::vector<TokenizerFile> files);

  /// Appends the ids of a text that is not empty and is UTF-8.
  virtual void append(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
  /// As bytes() and piece(), for an id of the vocabulary.
  virtual std::string_view bytes_of(std::int32_t id) const = 0;
  virtual std::string piece_of(std::int32_t id) const = 0;

  std::int64_t vocabulary_ = 0;
  SpecialTokens special_;
  bool drops_first_space_ = false;

 private:
  void check(std::int32_t id) const;

  std::string kind_, fingerprint_;
  std::vector<TokenizerFile> files_;
};

/// Opens a tokenizer by what it is:
///   - the word `byte`: ids 0 … 255 are the bytes, 256 is the document end;
///   - a SentencePiece model (`.model`);
///   - a Hugging Face `tokenizer.json` with byte-level BPE; a tokenizer_config.json beside it names the
///     special tokens;
///   - a vocabulary of RWKV (`.txt`), of which id 0 is the document end;
///   - a folder that holds one of these, or holds it in a folder `tokenizer`.
/// @throws Error (data) naming the file and what it lacks
std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& what);
/// True for a file whose name is that of a tokenizer, and a folder that holds one.
bool holds_tokenizer(const std::filesystem::path& path);

/// Turns ids into text one at a time, for showing text while it is generated: bytes of a character wait until
/// it is whole, and what is no UTF-8 becomes U+FFFD.
class TokenStream {
 public:
  /// @param at_start  false where the text goes on from another, so that its first space counts
  explicit TokenStream(const Tokenizer& tokenizer, bool at_start = true)
      : tokenizer_(tokenizer), drops_space_(at_start && tokenizer.drops_first_space()) {}

  /// Whole characters that are known now.
  std::string push(std::int32_t id);
  /// The rest: U+FFFD for a character that stayed cut.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool drops_space_;
  std::string waiting_;
};

}  // namespace bireme
