#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/commands.h"

namespace bireme {

/// A configuration key and its value as typed on the command line: `--optimizer.learning_rate 1e-3`.
struct Override {
  std::string key;
  std::string value;
};

/// The options of one command: declared once, then parsed, checked and explained from the same declaration.
/// Names are never guessed from a prefix, a repeated single option takes its last value, a repeated list goes
/// on.
///
///     Options options("bireme plot curves", "draws the curves of runs");
///     options.required("output", "FILE", "picture to write").example("bireme plot curves --run runs/a
///     --output a.png"); if (!options.parse(arguments)) return 0;   // --help was asked for and printed
class Options {
 public:
  Options(std::string program, std::string purpose);

  /// `--name`, off unless given.
  Options& flag(std::string name, std::string help);
  /// `--name VALUE`; absent unless given, or `fallback`.
  Options& value(std::string name, std::string placeholder, std::string help,
                 std::optional<std::string> fallback = {});
  Options& required(std::string name, std::string placeholder, std::string help);
  /// `--name VALUE...`, one or more.
  Options& list(std::string name, std::string placeholder, std::string help);
  Options& required_list(std::string name, std::string placeholder, std::string help);
  /// A word without a name: `bireme inspect PATH`. At most one, and it is required.
  Options& positional(std::string name, std::string placeholder, std::string help);
  /// Also takes `--SECTION.KEY VALUE` for these configuration keys, read back with overrides().
  Options& configuration(std::vector<std::string> keys);
  /// A whole command line for --help; each command shows two.
  Options& example(std::string command_line);

  /// @return        false when --help was asked for: the text was printed and the command is done
  /// @throws Error  (usage) naming the option, and the nearest name when it is unknown
  [[nodiscard]] bool parse(Arguments arguments);

  bool has(const std::string& name) const;
  bool flag(const std::string& name) const { return has(name); }
  bool json() const { return has("json"); }
  /// The value of a single option. @throws Error (usage) if it is absent and has no fallback
  const std::string& text(const std::string& name) const;
  std::filesystem::path path(const std::string& name) const { return text(name); }
  std::int64_t integer(const std::string& name, std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t high = std::numeric_limits<std::int64_t>::max()) const;
  double number(const std::string& name, double low = -std::numeric_limits<double>::infinity(),
                double high = std::numeric_limits<double>::infinity()) const;
  /// One of `choices`. @throws Error (usage) with the nearest of them otherwise
  const std::string& choice(const std::string& name, const std::vector<std::string>& choices) const;
  std::vector<std::string> texts(const std::string& name) const;
  /// A list in one word, `10,20,100`, or in several.
  std::vector<std::int64_t> integers(const std::string& name, std::int64_t low, std::int64_t high) const;
  const std::vector<Override>& overrides() const { return overrides_; }

  std::string help() const;

 private:
  enum class Kind { flag, single, list, positional };
  struct Declared {
    std::string name, placeholder, help;
    Kind kind;
    bool required = false;
    std::optional<std::string> fallback;
  };
  Options& declare(Declared declared);
  const Declared* find(const std::string& name) const;
  void store(const std::string& name, const std::vector<std::string>& values);
  void check_required() const;
  std::vector<std::string> known_names() const;
  [[noreturn]] void fail(const std::string& problem, const std::string& remedy = {}) const;

  std::string program_, purpose_;
  std::vector<Declared> declared_;
  std::vector<std::string> keys_, examples_;
  std::map<std::string, std::vector<std::string>> given_;
  std::vector<Override> overrides_;
};

}  // namespace bireme
