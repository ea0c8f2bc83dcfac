#include "core/data/answer_lines.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/base/error.h"

namespace bireme {

namespace fs = std::filesystem;

AnswerLines::AnswerLines(Options options) : options_(std::move(options)) {
  for (const fs::path& path : options_.inputs) {
    std::error_code failure;
    const auto bytes = fs::file_size(path, failure);
    if (failure)
      throw Error(ErrorKind::data, fmt::format("cannot open it ({})", failure.message()), path.string(),
                  "check the name and the permissions of the file");
    fs::path name = path;
    if (name.extension() == ".gz") name.replace_extension();
    if (name.extension() != ".jsonl")
      throw Error(ErrorKind::data, "its name does not end in .jsonl (nor .jsonl.gz)", path.string(),
                  "give JSON lines, one record each");
    bytes_total_ += static_cast<std::int64_t>(bytes);
  }
}

std::int64_t AnswerLines::bytes_done() const {
  return bytes_before_ + (lines_ ? lines_->packed_offset() : 0);
}

void AnswerLines::refuse(const std::string& what, const std::string& place) {
  if (!options_.skip_bad)
    throw Error(ErrorKind::data, what, place, "mend the line, or leave such lines out with --skip-bad");
  ++bad_lines_;
  if (first_bad_lines_.size() < kShownBadLines)
    first_bad_lines_.push_back(fmt::format("{}: {}", place, what));
}

std::optional<AnswerText> AnswerLines::next() {
  for (; input_ < options_.inputs.size(); ++input_) {
    const fs::path& path = options_.inputs[input_];
    if (!lines_) lines_ = std::make_unique<TextLines>(path);
    while (lines_->next()) {
      // Only behind the last record blank lines mean nothing.
      if (lines_->line().find_first_not_of(" \t\r") == std::string::npos) {
        if (blank_.empty()) blank_ = lines_->place();
        continue;
      }
      if (!blank_.empty()) refuse("the line is blank", std::exchange(blank_, {}));
      try {
        return options_.prompts_only ? parse_prompt_record(lines_->line())
                                     : parse_answer_record(options_.kind, lines_->line());
      } catch (const RecordProblem& problem) {
        refuse(problem.what(), lines_->place());
      }
    }
    blank_.clear();
    lines_.reset();
    bytes_before_ += static_cast<std::int64_t>(fs::file_size(path));
  }
  return {};
}

}  // namespace bireme
