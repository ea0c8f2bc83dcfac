#include "core/base/json.h"

namespace bireme {
namespace {

template <typename Json>
std::string text_of(const Json& value, int indent, bool ascii) {
  return value.dump(indent, ' ', ascii, Json::error_handler_t::replace);
}

}  // namespace

nlohmann::json parse_json(std::string_view text) { return nlohmann::json::parse(text); }
nlohmann::json try_parse_json(std::string_view text) {
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string json_text(const nlohmann::json& value, int indent) { return text_of(value, indent, false); }
std::string json_text(const nlohmann::ordered_json& value, int indent) {
  return text_of(value, indent, false);
}

std::string json_beginning(const nlohmann::json& value, std::size_t max_length) {
  return text_of(value, -1, true).substr(0, max_length);
}
std::string json_beginning(const nlohmann::ordered_json& value, std::size_t max_length) {
  return text_of(value, -1, true).substr(0, max_length);
}

}  // namespace bireme
