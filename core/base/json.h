#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace bireme {

// JSON from text and back. Files use these instead of the library's own parse() and dump(), which are
// templates that take seconds to compile wherever they are called.

/// @throws nlohmann::json::parse_error
nlohmann::json parse_json(std::string_view text);
/// A discarded value (is_discarded()) where the text is not JSON.
nlohmann::json try_parse_json(std::string_view text);

/// On one line, or with each level indented by so many spaces. What is not UTF-8 becomes U+FFFD.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

/// For messages: the beginning, in ASCII alone, so that it may be cut anywhere.
std::string json_beginning(const nlohmann::json& value, std::size_t max_length);
std::string json_beginning(const nlohmann::ordered_json& value, std::size_t max_length);

}  // namespace bireme
