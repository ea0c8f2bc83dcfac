#include "core/data/text_documents.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/text/utf8.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxDocumentBytes = 1 << 30;

/// ".txt" or ".jsonl", without the ".gz" behind it.
std::string kind_of(fs::path path) {
  if (path.extension() == ".gz") path.replace_extension();
  return path.extension().string();
}

bool is_blank(const std::string& line) { return line.find_first_not_of(" \t\r\f\v") == std::string::npos; }

}  // namespace

TextDocuments::TextDocuments(TextDocumentsOptions options) : options_(std::move(options)) {
  for (const fs::path& path : options_.inputs) {
    std::error_code failure;
    const auto bytes = fs::file_size(path, failure);
    if (failure)
      throw Error(ErrorKind::data, fmt::format("cannot open it ({})", failure.message()), path.string(),
                  "check the name and the permissions of the file");
    if (const std::string kind = kind_of(path); kind != ".txt" && kind != ".jsonl")
      throw Error(ErrorKind::data, "its name ends in neither .txt nor .jsonl (nor these with .gz)",
                  path.string(), "give text files, or JSON lines with the text under \"text\"");
    bytes_total_ += static_cast<std::int64_t>(bytes);
  }
}

std::int64_t TextDocuments::bytes_done() const {
  return bytes_before_ + (lines_ ? lines_->packed_offset() : 0);
}

std::optional<std::string> TextDocuments::next() {
  for (; input_ < options_.inputs.size(); ++input_) {
    const fs::path& path = options_.inputs[input_];
    if (!lines_) lines_ = std::make_unique<TextLines>(path);
    const bool is_text = kind_of(path) == ".txt";
    while (std::optional<std::string> document = is_text ? next_text() : next_json()) {
      if (document->empty()) {
        ++report_.empty_documents;
        continue;
      }
      ++report_.documents;
      report_.bytes += std::ssize(*document);
      return document;
    }
    lines_.reset();
    bytes_before_ += static_cast<std::int64_t>(fs::file_size(path));
  }
  return {};
}

void TextDocuments::refuse_line(const std::string& what) {
  if (!options_.skip_bad_lines)
    throw Error(ErrorKind::data, what, lines_->place(),
                "mend the line, or leave such lines out with --bad-lines skip");
  ++report_.bad_lines;
  if (report_.first_bad_lines.size() < kShownBadLines)
    report_.first_bad_lines.push_back(fmt::format("{}: {}", lines_->place(), what));
}

bool TextDocuments::next_line() {
  while (lines_->next()) {
    const std::string& line = lines_->line();
    const std::size_t valid = valid_utf8(line);
    if (valid == line.size()) return true;
    refuse_line(fmt::format("byte {} of the line, {} of the text (0x{:02x}), is not UTF-8", valid + 1,
                            lines_->offset() + static_cast<std::int64_t>(valid) + 1,
                            static_cast<unsigned char>(line[valid])));
  }
  return false;
}

std::optional<std::string> TextDocuments::next_text() {
  std::string document;
  bool has_begun = false;
  while (next_line()) {
    const std::string& line = lines_->line();
    if (options_.separator == DocumentSeparator::line) return line;
    if (options_.separator == DocumentSeparator::blank_line) {
      if (is_blank(line) && has_begun) return document;
      if (is_blank(line)) continue;
      if (has_begun) document += '\n';
      document += line;
    } else {
      document += line;
      if (lines_->has_line_feed()) document += '\n';
    }
    has_begun = true;
    if (document.size() > kMaxDocumentBytes)
      throw Error(ErrorKind::data, "a document is longer than 1 GiB", lines_->place(),
                  "cut the text with --document-separator blank-line or line");
  }
  if (!has_begun) return {};
  return document;
}

std::optional<std::string> TextDocuments::next_json() {
  using Json = nlohmann::json;
  while (next_line()) {
    const std::string& line = lines_->line();
    if (is_blank(line)) continue;
    try {
      const Json record = parse_json(line);
      if (!record.is_object()) {
        refuse_line("is not a JSON object");
      } else if (!record.contains("text")) {
        refuse_line("has no \"text\"");
      } else if (!record["text"].is_string()) {
        refuse_line("its \"text\" is not a string");
      } else {
        return record["text"].get<std::string>();
      }
    } catch (const Json::parse_error& error) {
      refuse_line(fmt::format("is not JSON from character {} on", error.byte));
    }
  }
  return {};
}

}  // namespace bireme
