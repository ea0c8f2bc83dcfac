#include "core/io/text_lines.h"

#include <spdlog/fmt/fmt.h>

#include <cstring>

namespace bireme {

namespace {

constexpr std::size_t kBufferBytes = 1 << 18;
constexpr std::size_t kMaxLineBytes = 1 << 30;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

TextLines::TextLines(const std::filesystem::path& path) : path_(path), file_(path), buffer_(kBufferBytes) {}

std::string TextLines::place() const { return fmt::format("{}:{}", path_.string(), number_); }

bool TextLines::next() {
  line_.clear();
  has_line_feed_ = false;
  offset_ = next_offset_;
  ++number_;
  while (!has_line_feed_) {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = file_.read(buffer_.data(), buffer_.size());
      if (end_ == 0) break;
    }
    const auto* from = reinterpret_cast<const char*>(buffer_.data()) + begin_;
    const auto* feed = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_));
    has_line_feed_ = feed != nullptr;
    const std::size_t count = has_line_feed_ ? static_cast<std::size_t>(feed - from) : end_ - begin_;
    line_.append(from, count);
    begin_ += count + (has_line_feed_ ? 1 : 0);
    next_offset_ += static_cast<std::int64_t>(count) + (has_line_feed_ ? 1 : 0);
    if (line_.size() > kMaxLineBytes) file_.fail(fmt::format("line {} is longer than 1 GiB", number_));
  }
  if (number_ == 1 && line_.starts_with(kByteOrderMark)) {
    line_.erase(0, kByteOrderMark.size());
    offset_ += std::ssize(kByteOrderMark);
  }
  return has_line_feed_ || !line_.empty();
}

}  // namespace bireme
