#include "core/text/split_pattern.h"

#include <spdlog/fmt/fmt.h>
#include <unicode/regex.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>

#include <array>

#include "core/base/error.h"
#include "core/base/owned.h"
#include "core/text/utf8.h"

namespace bireme {

namespace {

enum class Class : unsigned char { space, letter, number, other };

Class class_of_code_point(std::uint32_t c) {
  const auto code_point = static_cast<UChar32>(c);
  if (u_isUWhiteSpace(code_point)) return Class::space;
  const std::uint32_t category = U_GET_GC_MASK(code_point);
  if ((category & U_GC_L_MASK) != 0) return Class::letter;
  if ((category & U_GC_N_MASK) != 0) return Class::number;
  return Class::other;
}

std::array<Class, 0x80> ascii_classes() {
  std::array<Class, 0x80> classes{};
  for (std::uint32_t c = 0; c < classes.size(); ++c) classes[c] = class_of_code_point(c);
  return classes;
}

/// The expression of GPT-2 by hand.
class Gpt2Scanner {
 public:
  explicit Gpt2Scanner(std::string_view text) : text_(text) {}

  std::size_t word_end(std::size_t begin) const {
    if (text_[begin] == '\'')
      if (const std::size_t length = contraction(begin); length > 0) return begin + length;
    std::size_t after = begin;
    Class kind = take(after);
    if (kind != Class::space) return run_end(after, kind);
    // A single space goes with the word after it.
    if (text_[begin] == ' ' && after < text_.size()) {
      std::size_t second = after;
      if (const Class next = take(second); next != Class::space) return run_end(second, next);
    }
    return spaces_end(begin);
  }

 private:
  /// The class of the character at `position`, which moves past it.
  Class take(std::size_t& position) const {
    static const std::array<Class, 0x80> kAscii = ascii_classes();
    const auto byte = static_cast<unsigned char>(text_[position]);
    if (byte < 0x80) {
      ++position;
      return kAscii[byte];
    }
    return class_of_code_point(next_code_point(text_, position));
  }

  std::size_t run_end(std::size_t position, Class kind) const {
    while (position < text_.size()) {
      std::size_t next = position;
      if (take(next) != kind) break;
      position = next;
    }
    return position;
  }

  /// \s+(?!\S)|\s+ : a run of spaces leaves its last to the word after it.
  std::size_t spaces_end(std::size_t begin) const {
    std::size_t last = begin, end = begin;
    while (end < text_.size()) {
      std::size_t next = end;
      if (take(next) != Class::space) return last > begin ? last : end;
      last = end;
      end = next;
    }
    return end;
  }

  std::size_t contraction(std::size_t begin) const {
    const std::string_view rest = text_.substr(begin + 1);
    for (const std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"})
      if (rest.starts_with(ending)) return 1 + ending.size();
    return 0;
  }

  std::string_view text_;
};

struct UTextTraits {
  using Handle = UText*;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle text) noexcept { utext_close(text); }
};

// ICU counts steps of the match engine in units of about a millisecond; a whole word takes a few steps.
constexpr std::int32_t kMostSteps = 1000;

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorKind::data, what, "split pattern of the tokenizer", "use another tokenizer.json");
}

}  // namespace

const char* const SplitPattern::kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct SplitPattern::Compiled {
  std::unique_ptr<icu::RegexPattern> pattern;
};

SplitPattern::SplitPattern(const std::string& expression, bool with_own_scanner) {
  if (with_own_scanner && expression == kGpt2) return;
  UErrorCode status = U_ZERO_ERROR;
  UParseError place{};
  compiled_ = std::make_unique<Compiled>();
  compiled_->pattern.reset(
      icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(expression), 0, place, status));
  if (U_FAILURE(status))
    fail(fmt::format("`{}` is not a regular expression ({} at character {})", expression, u_errorName(status),
                     place.offset));
}

SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

void SplitPattern::split(std::string_view text, std::vector<std::size_t>& ends) const {
  if (!compiled_) {
    const Gpt2Scanner scanner(text);
    for (std::size_t end = 0; end < text.size(); ends.push_back(end)) end = scanner.word_end(end);
    return;
  }
  UErrorCode status = U_ZERO_ERROR;
  const Owned<UTextTraits> input(
      utext_openUTF8(nullptr, text.data(), static_cast<std::int64_t>(text.size()), &status));
  const std::unique_ptr<icu::RegexMatcher> matcher(compiled_->pattern->matcher(status));
  if (U_FAILURE(status)) fail(fmt::format("cannot be run ({})", u_errorName(status)));
  matcher->setTimeLimit(kMostSteps, status);
  matcher->reset(input.get());
  std::size_t done = 0;
  const auto cut = [&](std::size_t end) {
    if (end > done) ends.push_back(done = end);
  };
  while (matcher->find(status)) {
    cut(static_cast<std::size_t>(matcher->start64(status)));
    cut(static_cast<std::size_t>(matcher->end64(status)));
  }
  if (U_FAILURE(status)) fail(fmt::format("cannot be matched against a text ({})", u_errorName(status)));
  cut(text.size());
}

}  // namespace bireme
