#include "models/xlstm_options.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr std::int64_t kWidthMultiple = 64;

std::int64_t rounded_up(double width, std::int64_t multiple) {
  constexpr double kRounding = 1e-9;  // of a factor that was computed from a width
  return static_cast<std::int64_t>(std::ceil(width / static_cast<double>(multiple) - kRounding)) * multiple;
}

void require(bool holds, const std::string& problem, const char* where, const std::string& remedy) {
  if (!holds) throw Error(ErrorKind::usage, problem, where, remedy);
}

void require_divides(std::int64_t count, std::int64_t width, const char* things, const char* where) {
  require(count >= 1 && width % count == 0,
          fmt::format("{} {} channels do not divide by {}", width, things, count), where,
          fmt::format("choose a divisor of {}", width));
}

}  // namespace

std::int64_t XlstmOptions::inner() const {
  return rounded_up(projection_factor * static_cast<double>(channels), kWidthMultiple);
}
std::int64_t XlstmOptions::slstm_hidden() const {
  return hidden_width > 0 ? hidden_width
                          : rounded_up(slstm_ffn_factor * static_cast<double>(channels), kWidthMultiple);
}
std::int64_t XlstmOptions::keys() const {
  return static_cast<std::int64_t>(key_factor * static_cast<double>(channels));
}
std::int64_t XlstmOptions::values() const {
  return static_cast<std::int64_t>(value_factor * static_cast<double>(channels));
}
std::int64_t XlstmOptions::large_hidden() const {
  return hidden_width > 0 ? hidden_width
                          : rounded_up(ffn_factor * static_cast<double>(channels), ffn_multiple);
}

void XlstmOptions::validate() const {
  require(
      vocabulary >= 1 && channels >= 1 && layers >= 1,
      fmt::format("an xlstm of {} tokens, {} channels and {} blocks cannot be", vocabulary, channels, layers),
      "model", "give all of them 1 or more");
  require(chunk >= 1, "a chunk of the xlstm is empty", "model.chunk", "choose 1 or more; 64 is usual");
  if (architecture == XlstmArchitecture::large) {
    require_divides(heads, keys(), "query", "model.heads");
    require_divides(heads, values(), "value", "model.heads");
    return;
  }
  require(!pattern.empty() && pattern.find_first_not_of("ms") == std::string::npos,
          fmt::format("`{}` is no pattern of blocks", pattern), "model.pattern",
          "use the letters m (matrix memory) and s (scalar memory), such as mmmmmmms");
  require(convolution >= 1 && slstm_convolution >= 0,
          fmt::format("a convolution over {} tokens cannot be", std::min(convolution, slstm_convolution)),
          "model.convolution", "choose 1 or more; 4 is usual");
  require_divides(heads, inner(), "inner", "model.heads");
  require_divides(projection_block, inner(), "inner", "model.projection_block");
  require_divides(heads_of_slstm(), channels, "sLSTM", "model.heads");
}

}  // namespace bireme
