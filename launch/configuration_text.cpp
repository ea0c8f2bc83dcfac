#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "launch/configuration_keys.h"

namespace bireme {

namespace {

std::string toml_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      result += c;
    }
  }
  return result + "\"";
}

/// The shortest text that reads back to the same number, and never looks like an integer.
std::string number_text(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

struct ValueText {
  std::string operator()(const std::string* value) const { return toml_string(*value); }
  std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const { return number_text(*value); }
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::vector<double>* value) const {
    std::string text;
    for (const double entry : *value) text += (text.empty() ? "" : ", ") + number_text(entry);
    return "[" + text + "]";
  }
  std::string operator()(const std::vector<std::string>* value) const {
    std::string text;
    for (const std::string& entry : *value) text += (text.empty() ? "" : ", ") + toml_string(entry);
    return "[" + text + "]";
  }
};

/// The keys whose values differ between two configurations, with those of the second.
std::string changed_defaults(const std::string& first, const std::string& second) {
  const Configuration a = parse_configuration(first, ""), b = parse_configuration(second, "");
  std::string list;
  for (const Key& key : key_table()) {
    const std::string before = value_text(key.value_in(a)), after = value_text(key.value_in(b));
    if (before == after || key.name == "model.type" || (!first.empty() && key.name == "objective.type"))
      continue;
    list += fmt::format("{}`{}` {}", list.empty() ? "" : ", ", key.name, after);
  }
  return list;
}

/// What model.type changes of the defaults, as the page of all keys says it.
std::string language_defaults() {
  return changed_defaults("", "model.type = \"llama\"") +
         "; RWKV also `optimizer.beta2` 0.99 and `objective.l2_wrap` 0.0001";
}

/// What alignment changes of those.
std::string alignment_defaults() {
  const std::string llama = "model.type = \"llama\"\n";
  const auto changes = [&](const char* objective) {
    return changed_defaults(llama, llama + fmt::format("objective.type = \"{}\"", objective));
  };
  return changes("dpo") +
         "; simpo also `objective.beta` 2, ipo `objective.length_normalise` true, orpo "
         "`objective.nll_scope` \"sequence\"";
}

}  // namespace

std::string value_text(const ConstantPlace& value) { return std::visit(ValueText{}, value); }

std::string_view type_name(const ConstantPlace& value) {
  static constexpr std::string_view names[] = {"text",          "integer",         "number",
                                               "true or false", "list of numbers", "list of texts"};
  return names[value.index()];
}

std::vector<std::string> configuration_keys() {
  std::vector<std::string> names;
  for (const Key& key : key_table()) names.emplace_back(key.name);
  return names;
}

std::string to_toml(const Configuration& configuration) {
  std::string text;
  std::string_view section;
  for (const Key& key : key_table()) {
    if (!key.applies_to(configuration)) continue;
    if (key.section() != section) {
      text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", key.section());
      section = key.section();
    }
    text += fmt::format("{} = {}\n", key.short_name(), value_text(key.value_in(configuration)));
  }
  return text;
}

std::string configuration_reference() {
  std::string text =
      "# Configuration\n\n"
      "Every key of a run. A TOML file gives them in sections (`bireme train --config FILE`), the command "
      "line overrides\n"
      "the file (`--optimizer.learning_rate 1e-3`), and what neither gives has the default below, which is "
      "the recipe of\n"
      "`configs/fashion_mnist.toml`. An unknown key, a wrong type or a value outside its range is an error "
      "that names the\n"
      "file and line. Keys marked with * change how fast or where a run computes and what it reports, not "
      "its mathematics:\n"
      "they may differ when a run resumes. A key that begins with kinds of models is refused for others, "
      "where "
      "it has no\n"
      "meaning; so is, among language models, one of text (objective language_model) or of alignment (sft, "
      "orpo, "
      "dpo, ipo,\n"
      "kto, simpo, dro) for the other. Language models (`model.type` other than vit) have defaults of their "
      "own: " +
      language_defaults() + ". Alignment changes of these: " + alignment_defaults() +
      ".\n\n"
      "This page is the output of `bireme train --help-config`.\n";
  const Configuration defaults;
  std::string_view section;
  for (const Key& key : key_table()) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format("\n## [{}]\n\n| key | type | default | meaning |\n|---|---|---|---|\n", section);
    }
    const ConstantPlace value = key.value_in(defaults);
    const std::string unit = key.unit.empty() ? "" : fmt::format(", {}", key.unit);
    const std::string allowed = key.allowed.text();
    const std::string topic = key.aim == Aim::text        ? "Text"
                              : key.aim == Aim::alignment ? "Alignment"
                                                          : topic_name(key.topic);
    text += fmt::format(
        "| `{}`{} | {}{} | `{}` | {}{}{} |\n", key.short_name(), key.effect == Effect::execution ? " *" : "",
        type_name(value), unit, value_text(value), topic.empty() ? "" : topic + ": ", key.help,
        allowed.empty()
            ? ""
            : fmt::format(" ({}{})", static_cast<char>(std::toupper(allowed[0])), allowed.substr(1)));
  }
  return text;
}

std::vector<ConfigurationDifference> mathematical_differences(const Configuration& before,
                                                              const Configuration& after) {
  std::vector<ConfigurationDifference> differences;
  for (const Key& key : key_table()) {
    if (key.effect == Effect::execution || key.name == "model.size")
      continue;  // size only stands for other keys
    const std::string old_text = value_text(key.value_in(before)), new_text = value_text(key.value_in(after));
    if (old_text != new_text) differences.push_back({std::string(key.name), old_text, new_text});
  }
  return differences;
}

void require_same_mathematics(const Configuration& before, const Configuration& after,
                              const std::string& folder) {
  std::string list;
  for (const ConfigurationDifference& d : mathematical_differences(before, after))
    list += fmt::format("{}{} was {} and is now {}", list.empty() ? "" : ", ", d.key, d.before, d.after);
  if (list.empty()) return;
  throw Error(ErrorKind::usage, "this would not be the run that was started: " + list, folder,
              "resume with the values of its config.toml, or start a new run with --model.init " + folder);
}

}  // namespace bireme
