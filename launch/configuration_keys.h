#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "launch/configuration.h"

namespace bireme {

/// Where a key's value lives in a Configuration; the alternative is its type.
using Place = std::variant<std::string*, std::int64_t*, double*, bool*, std::vector<double>*,
                           std::vector<std::string>*>;
using ConstantPlace = std::variant<const std::string*, const std::int64_t*, const double*, const bool*,
                                   const std::vector<double>*, const std::vector<std::string>*>;

/// Values that a key accepts: a range of numbers (of each entry, for lists) or a few words.
struct Allowed {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_is_open = false, high_is_open = false;
  std::vector<std::string> words;

  bool contains(double value) const {
    return (low_is_open ? value > low : value >= low) && (high_is_open ? value < high : value <= high);
  }
  /// "0 to 1", "at least 1", "above 0", "one of a, b", or empty.
  std::string text() const;
};

/// Whether a value changes what is computed, or only how fast, where, and what is reported.
enum class Effect { mathematics, execution };

/// What kinds of run a key has a meaning for: a set of model types.
enum class Topic : unsigned {
  vit = 1,
  rwkv = 2,
  xlstm = 4,
  llama = 8,
  pictures = vit,
  language = rwkv | xlstm | llama,
  any = pictures | language
};
constexpr Topic operator|(Topic a, Topic b) {
  return static_cast<Topic>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
/// That of a run: one model type.
Topic topic_of(const Configuration& configuration);
bool is_language(const Configuration& configuration);
/// "", "Pictures", "Language models", "RWKV, xLSTM" and so on, for the reference of keys.
std::string topic_name(Topic topic);

/// What kinds of objective a key of language models has a meaning for: text as one stream, or prompts with
/// answers.
enum class Aim { any, text, alignment };
/// Whether an objective learns from prompts with answers.
bool is_alignment(std::string_view objective);

/// One row of the option table: the only place that knows a key.
struct Key {
  std::string_view name;  ///< "section.key"
  Place (*place)(Configuration&);
  Allowed allowed;
  Effect effect;
  std::string_view unit;  ///< empty for pure numbers, words and switches
  std::string_view help;  ///< one sentence
  Topic topic = Topic::any;
  Aim aim = Aim::any;

  bool applies_to(Topic run) const {
    return (static_cast<unsigned>(topic) & static_cast<unsigned>(run)) != 0;
  }
  bool applies_to(const Configuration& run) const {
    return applies_to(topic_of(run)) &&
           (aim == Aim::any || (aim == Aim::alignment) == is_alignment(run.objective.type));
  }
  ConstantPlace value_in(const Configuration& configuration) const;
  std::string_view section() const { return name.substr(0, name.find('.')); }
  std::string_view short_name() const { return name.substr(name.find('.') + 1); }
};

const std::vector<Key>& key_table();
const Key* find_key(std::string_view name);

/// "integer", "number", "text", "true or false", "list of numbers", "list of texts".
std::string_view type_name(const ConstantPlace& value);
/// The value as TOML.
std::string value_text(const ConstantPlace& value);

}  // namespace bireme
