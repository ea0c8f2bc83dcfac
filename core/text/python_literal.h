#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bireme {

/// The bytes of a Python string literal ('…' or "…", as UTF-8) or bytes literal (b'…'), with the escapes that
/// repr() writes and those of octal and hexadecimal digits; nothing when it is not one, or when it holds a
/// surrogate.
std::optional<std::string> parse_python_literal(std::string_view literal);

}  // namespace bireme
