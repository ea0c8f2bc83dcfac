#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace bireme {

/// A small JSON object from a file that may come from a stranger: every value is asked for with its type.
/// @throws Error (checkpoint) naming file and key, from every method
class JsonFile {
 public:
  explicit JsonFile(const std::filesystem::path& path);
  /// An object within `file`, for messages.
  JsonFile(nlohmann::json object, std::string file);

  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  std::int64_t integer(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t fallback) const {
    return has(key) ? integer(key) : fallback;
  }
  double number(const char* key) const;
  double number(const char* key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool flag(const char* key, bool fallback) const;
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& fallback) const {
    return has(key) ? text(key) : fallback;
  }
  std::vector<double> numbers(const char* key) const;
  /// One integer, or a list of them; none where the key is absent.
  std::vector<std::int64_t> integers(const char* key) const;
  /// One integer for both, or a list of two: height, width.
  std::pair<std::int64_t, std::int64_t> size(const char* key) const;
  JsonFile object(const char* key) const;
  const std::string& file() const { return file_; }

  [[noreturn]] void fail(const std::string& problem, const std::string& remedy) const;

 private:
  const nlohmann::json& value(const char* key) const;
  [[noreturn]] void wrong_type(const char* key, const char* wanted) const;

  std::string file_;
  nlohmann::json object_;
};

}  // namespace bireme
