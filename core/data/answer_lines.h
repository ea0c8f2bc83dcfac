#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/answer_records.h"
#include "core/io/text_lines.h"

namespace bireme {

/// The records of JSON-lines files, one after another.
class AnswerLines {
 public:
  struct Options {
    std::vector<std::filesystem::path> inputs;  ///< .jsonl, plain or .gz
    AnswerKind kind = AnswerKind::pairs;        ///< of the lines
    bool skip_bad = false;                      ///< leave bad lines out instead of stopping
    bool prompts_only = false;  ///< lines of any kind, for their prompts; pairs keep their answers
  };
  /// @throws Error (data) naming the first file that is missing or of another kind
  explicit AnswerLines(Options options);

  /// Nothing behind the last. @throws Error (data) with file and line
  std::optional<AnswerText> next();

  std::int64_t bad_lines() const { return bad_lines_; }
  /// At most ten, each with place and reason.
  const std::vector<std::string>& first_bad_lines() const { return first_bad_lines_; }
  /// Bytes of the files as they lie on the disk: taken so far, and all.
  std::int64_t bytes_done() const;
  std::int64_t bytes_total() const { return bytes_total_; }

 private:
  void refuse(const std::string& what, const std::string& place);

  Options options_;
  std::size_t input_ = 0;  // the file at hand
  std::unique_ptr<TextLines> lines_;
  std::string blank_;  // the place of a blank line behind which nothing has come yet
  std::int64_t bad_lines_ = 0, bytes_before_ = 0, bytes_total_ = 0;
  std::vector<std::string> first_bad_lines_;
};

}  // namespace bireme
