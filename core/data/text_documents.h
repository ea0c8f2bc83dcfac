#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/text_lines.h"

namespace bireme {

/// What separates the documents of a .txt file.
enum class DocumentSeparator : std::uint8_t {
  none,        ///< nothing: the file is one document, every byte of it
  blank_line,  ///< lines of nothing but white space, which are left out
  line,        ///< each line is one, without its line feed
};

struct TextDocumentsOptions {
  std::vector<std::filesystem::path> inputs;  ///< .txt and .jsonl, plain or .gz
  DocumentSeparator separator = DocumentSeparator::none;
  bool skip_bad_lines = false;  ///< leave lines out that are no UTF-8 or no such JSON, instead of stopping
};

/// What was left out on the way, none of it in silence.
struct TextDocumentsReport {
  std::int64_t documents = 0;  ///< that are not empty
  std::int64_t bytes = 0;      ///< of these
  std::int64_t empty_documents =
      0;  ///< empty strings under "text", and empty lines where lines are documents
  std::int64_t bad_lines = 0;
  std::vector<std::string> first_bad_lines;  ///< at most ten, each with place and reason
};

/// The documents of text files, in their order: of .txt as the separator says, of .jsonl the string under
/// "text" in each line.
class TextDocuments {
 public:
  /// @throws Error (data) naming the first file that is missing or of another kind
  explicit TextDocuments(TextDocumentsOptions options);

  /// The next document that is not empty; nothing behind the last.
  /// @throws Error (data) with file, line, and byte for text that is not UTF-8 or JSON that is not as it
  /// should be, or a document beyond 1 GiB
  std::optional<std::string> next();
  const TextDocumentsReport& report() const { return report_; }

  /// Bytes of the files as they lie on the disk: taken so far, and all.
  std::int64_t bytes_done() const;
  std::int64_t bytes_total() const { return bytes_total_; }

 private:
  /// Moves to the next good line, of the next file where one ends: false at the end of a file.
  bool next_line();
  void refuse_line(const std::string& what);
  std::optional<std::string> next_text();
  std::optional<std::string> next_json();

  TextDocumentsOptions options_;
  TextDocumentsReport report_;
  std::size_t input_ = 0;  // the file at hand
  std::unique_ptr<TextLines> lines_;
  std::int64_t bytes_before_ = 0, bytes_total_ = 0;
};

}  // namespace bireme
