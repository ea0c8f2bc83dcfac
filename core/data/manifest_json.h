#pragma once

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/data/manifest.h"

// How manifests of every kind are written and taken apart.
namespace bireme::manifest_json {

using Json = nlohmann::ordered_json;

inline constexpr const char* kRebuild = "copy the dataset again, or rebuild it with `bireme prepare`";

/// Takes typed values out of one JSON object and names the key that is missing or wrong.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("is not a JSON object");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::data, what, where_, kRebuild);
  }

  bool has(const char* key) const { return object_.contains(key); }
  const Json& at(const char* key) const {
    if (!has(key)) fail(fmt::format("`{}` is missing", key));
    return object_.at(key);
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail(fmt::format("`{}` is not a string", key));
    return at(key).get<std::string>();
  }
  std::int64_t count(const char* key, std::int64_t largest = std::int64_t{1} << 53) const {
    const Json& value = at(key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(largest))
      fail(fmt::format("`{}` is not a count of at most {}", key, largest));
    return value.get<std::int64_t>();
  }
  bool truth(const char* key) const {
    if (!at(key).is_boolean()) fail(fmt::format("`{}` is neither true nor false", key));
    return at(key).get<bool>();
  }
  template <class T>
  std::vector<T> list(const char* key, bool (Json::*is_right)() const noexcept) const {
    std::vector<T> values;
    if (!at(key).is_array()) fail(fmt::format("`{}` is not a list", key));
    for (const Json& value : at(key)) {
      if (!(value.*is_right)()) fail(fmt::format("`{}` holds {}", key, json_beginning(value, 40)));
      values.push_back(value.get<T>());
    }
    return values;
  }

 private:
  const Json& object_;
  std::string where_;
};

/// Begins to read a manifest of any kind. @throws Error (data)
Json parse(std::string_view text, const std::string& where);
/// What all kinds have. @param has_tokens  shards state how many tokens they hold
void parse_common(DatasetManifest& manifest, const Fields& fields, const std::string& kind, bool has_tokens,
                  const std::string& where);
/// The sum of a number over the shards, which the manifest states too.
void require_sum(const Fields& fields, const DatasetManifest& manifest, const char* key,
                 std::int64_t ShardEntry::*number);

Json common(const DatasetManifest& manifest);
/// With the shards behind everything else.
std::string finished(Json json, const DatasetManifest& manifest);

}  // namespace bireme::manifest_json
