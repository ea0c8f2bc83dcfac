#include "models/published/json_file.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxBytes = 4 << 20;    // label lists of classifiers take a few hundred kilobytes
constexpr std::int64_t kMaxSetting = 1 << 30;  // beyond any size, and products of two stay within 64 bits

}  // namespace

JsonFile::JsonFile(const std::filesystem::path& path) : file_(path.string()) {
  object_ = try_parse_json(read_file(path, kMaxBytes));
  if (!object_.is_object()) fail("this is not a JSON object", "copy the file again");
}

JsonFile::JsonFile(nlohmann::json object, std::string file)
    : file_(std::move(file)), object_(std::move(object)) {}

void JsonFile::fail(const std::string& problem, const std::string& remedy) const {
  throw Error(ErrorKind::checkpoint, problem, file_, remedy);
}

const nlohmann::json& JsonFile::value(const char* key) const {
  if (!has(key)) fail(fmt::format("`{}` is missing", key), "add the key, or copy the file again");
  return object_[key];
}

void JsonFile::wrong_type(const char* key, const char* wanted) const {
  fail(fmt::format("`{}` is {}, not {}", key, json_beginning(object_[key], 60), wanted), "correct the value");
}

std::int64_t JsonFile::integer(const char* key) const {
  const nlohmann::json& found = value(key);
  if (!found.is_number_integer() || found < -kMaxSetting || found > kMaxSetting)
    wrong_type(key, "a number of reasonable size");
  return found.get<std::int64_t>();
}

double JsonFile::number(const char* key) const {
  const nlohmann::json& found = value(key);
  if (!found.is_number()) wrong_type(key, "a number");
  return found.get<double>();
}

bool JsonFile::flag(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!value(key).is_boolean()) wrong_type(key, "true or false");
  return value(key).get<bool>();
}

std::string JsonFile::text(const char* key) const {
  if (!value(key).is_string()) wrong_type(key, "a text");
  return value(key).get<std::string>();
}

std::vector<double> JsonFile::numbers(const char* key) const {
  std::vector<double> numbers;
  if (!value(key).is_array()) wrong_type(key, "a list of numbers");
  for (const nlohmann::json& entry : value(key)) {
    if (!entry.is_number()) wrong_type(key, "a list of numbers");
    numbers.push_back(entry.get<double>());
  }
  return numbers;
}

std::vector<std::int64_t> JsonFile::integers(const char* key) const {
  if (!has(key)) return {};
  if (!value(key).is_array()) return {integer(key)};
  std::vector<std::int64_t> integers;
  for (const nlohmann::json& entry : value(key)) {
    if (!entry.is_number_integer()) wrong_type(key, "an integer or a list of integers");
    integers.push_back(entry.get<std::int64_t>());
  }
  return integers;
}

std::pair<std::int64_t, std::int64_t> JsonFile::size(const char* key) const {
  if (!value(key).is_array()) return {integer(key), integer(key)};
  const std::vector<double> sides = numbers(key);
  if (sides.size() != 2) wrong_type(key, "a size or a pair of sizes");
  for (const double side : sides)
    if (!(side >= 0 && side <= kMaxSetting)) wrong_type(key, "a pair of sizes");
  return {static_cast<std::int64_t>(sides[0]), static_cast<std::int64_t>(sides[1])};
}

JsonFile JsonFile::object(const char* key) const {
  if (!value(key).is_object()) wrong_type(key, "an object");
  return {value(key), fmt::format("{} ({})", file_, key)};
}

}  // namespace bireme
