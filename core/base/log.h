#pragma once

#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <string_view>
#include <utility>

namespace bireme {

// Lines of the log, formatted by fmt. spdlog's own formatting is compiled anew wherever it is called, which
// takes seconds a file; this goes through the library's compiled code.

template <typename... Arguments>
void log_info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  spdlog::info(std::string_view(fmt::format(format, std::forward<Arguments>(arguments)...)));
}
template <typename... Arguments>
void log_warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  spdlog::warn(std::string_view(fmt::format(format, std::forward<Arguments>(arguments)...)));
}
template <typename... Arguments>
void log_error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  spdlog::error(std::string_view(fmt::format(format, std::forward<Arguments>(arguments)...)));
}

}  // namespace bireme
