#pragma once

#include <map>
#include <string>
#include <string_view>

#include "launch/configuration.h"

namespace bireme {

/// Where each key of a configuration was given, for messages and for precedence.
class Origins {
 public:
  enum Source { defaults, file, command_line };  ///< later ones override earlier ones
  struct Origin {
    std::string where = "the defaults";
    Source source = defaults;
  };

  void set(std::string_view key, Origin origin) {
    origins_.insert_or_assign(std::string(key), std::move(origin));
  }
  Source source(const std::string& key) const { return of(key).source; }
  std::string where(const std::string& key) const { return of(key).where; }
  /// Of two keys that contradict each other, the places where they were given; a default has none.
  std::string where(const std::string& key, const std::string& other) const {
    const Origin &a = of(key), &b = of(other);
    if (b.source == defaults || a.where == b.where) return a.where;
    return a.source == defaults ? b.where : a.where + " and " + b.where;
  }

 private:
  const Origin& of(const std::string& key) const {
    static const Origin unset;
    const auto found = origins_.find(key);
    return found == origins_.end() ? unset : found->second;
  }
  std::map<std::string, Origin> origins_;
};

/// @throws Error (usage) with the nearest name if `section` is not one of the eight
void known_section(const std::string& section, const std::string& where);

/// Checks what no single key can break: values that contradict each other.
/// @throws Error (usage) naming both values and where they were given
void check_consistency(const Configuration& configuration, const Origins& origins);

}  // namespace bireme
