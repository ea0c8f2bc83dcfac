#include "launch/configuration.h"

#include <spdlog/fmt/fmt.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "launch/configuration_check.h"
#include "launch/configuration_keys.h"
#include "launch/configuration_presets.h"
#include "launch/model_folder.h"
#include "launch/numbers.h"
#include "models/registry.h"

namespace bireme {

namespace {

[[noreturn]] void fail(const std::string& problem, const std::string& where, const std::string& remedy) {
  throw Error(ErrorKind::usage, problem, where, remedy);
}

/// Reads values into a Configuration, remembering where each key was given.
class Reader {
 public:
  explicit Reader(Origins& origins) : origins_(origins) {}

  Configuration configuration;

  void read_file(std::string_view text, const std::string& name);
  void read_override(const Override& override);

 private:
  const Key& known_key(const std::string& name, const std::string& where) const;
  void read_node(const Key& key, const toml::node& node, const std::string& where);
  void store(const Key& key, const std::optional<std::int64_t>& value, const std::string& shown,
             const std::string& where);
  void store(const Key& key, const std::optional<double>& value, const std::string& shown,
             const std::string& where);
  void store(const Key& key, const std::optional<bool>& value, const std::string& shown,
             const std::string& where);
  void store(const Key& key, const std::string& value, const std::string& where);
  void store(const Key& key, const std::vector<std::optional<double>>& values, const std::string& shown,
             const std::string& where);
  [[noreturn]] void wrong_type(const Key& key, const std::string& shown, const std::string& where) const;
  void check_range(const Key& key, double value, const std::string& shown, const std::string& where) const;

  Origins& origins_;
};

const Key& Reader::known_key(const std::string& name, const std::string& where) const {
  if (const Key* key = find_key(name)) return *key;
  const std::string nearest = nearest_name(name, configuration_keys());
  fail(fmt::format("unknown key `{}`", name), where,
       nearest.empty() ? "`bireme train --help-config` lists all keys"
                       : fmt::format("did you mean `{}`?", nearest));
}

void Reader::wrong_type(const Key& key, const std::string& shown, const std::string& where) const {
  fail(fmt::format("{} is {}, which is not of type {}", key.name, shown,
                   type_name(key.value_in(configuration))),
       where, fmt::format("its default is {}", value_text(key.value_in(Configuration{}))));
}

void Reader::check_range(const Key& key, double value, const std::string& shown,
                         const std::string& where) const {
  if (!std::isfinite(value) || !key.allowed.contains(value))
    fail(
        fmt::format("{} is {}, outside its range", key.name, shown), where,
        key.allowed.text().empty() ? "choose a finite number" : fmt::format("choose {}", key.allowed.text()));
}

void Reader::store(const Key& key, const std::optional<std::int64_t>& value, const std::string& shown,
                   const std::string& where) {
  if (!value) wrong_type(key, shown, where);
  check_range(key, static_cast<double>(*value), shown, where);
  *std::get<std::int64_t*>(key.place(configuration)) = *value;
}

void Reader::store(const Key& key, const std::optional<double>& value, const std::string& shown,
                   const std::string& where) {
  if (!value) wrong_type(key, shown, where);
  check_range(key, *value, shown, where);
  *std::get<double*>(key.place(configuration)) = *value;
}

void Reader::store(const Key& key, const std::optional<bool>& value, const std::string& shown,
                   const std::string& where) {
  if (!value) wrong_type(key, shown, where);
  *std::get<bool*>(key.place(configuration)) = *value;
}

void Reader::store(const Key& key, const std::string& value, const std::string& where) {
  const auto& words = key.allowed.words;
  if (!words.empty() && std::find(words.begin(), words.end(), value) == words.end()) {
    const std::string nearest = nearest_name(value, words);
    fail(fmt::format("{} is \"{}\", which is not known", key.name, value), where,
         nearest.empty() ? fmt::format("choose {}", key.allowed.text())
                         : fmt::format("did you mean \"{}\"?", nearest));
  }
  *std::get<std::string*>(key.place(configuration)) = value;
}

void Reader::store(const Key& key, const std::vector<std::optional<double>>& values, const std::string& shown,
                   const std::string& where) {
  std::vector<double> numbers;
  for (const std::optional<double>& value : values) {
    if (!value) wrong_type(key, shown, where);
    check_range(key, *value, fmt::format("{}", *value), where);
    numbers.push_back(*value);
  }
  *std::get<std::vector<double>*>(key.place(configuration)) = std::move(numbers);
}

std::string location(const std::string& name, const toml::source_region& source) {
  return fmt::format("{}:{}:{}", name, source.begin.line, source.begin.column);
}

std::string shown(const toml::node& node) {
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

void Reader::read_node(const Key& key, const toml::node& node, const std::string& where) {
  const std::string text = shown(node);
  // TOML writes 1 and 1.0 differently; a number takes both, an integer only the first.
  const auto as_number = [](const toml::node& n) { return n.is_number() ? n.value<double>() : std::nullopt; };
  switch (key.place(configuration).index()) {
    case 0:
      if (!node.is_string()) wrong_type(key, text, where);
      store(key, node.value_or(std::string{}), where);
      break;
    case 1: store(key, node.value_exact<std::int64_t>(), text, where); break;
    case 2: store(key, as_number(node), text, where); break;
    case 3: store(key, node.value_exact<bool>(), text, where); break;
    case 4: {
      if (!node.is_array()) wrong_type(key, text, where);
      std::vector<std::optional<double>> entries;
      for (const toml::node& entry : *node.as_array()) entries.push_back(as_number(entry));
      store(key, entries, text, where);
      break;
    }
    default: {
      if (!node.is_array()) wrong_type(key, text, where);
      std::vector<std::string> entries;
      for (const toml::node& entry : *node.as_array()) {
        if (!entry.is_string()) wrong_type(key, text, where);
        entries.push_back(entry.value_or(std::string{}));
      }
      *std::get<std::vector<std::string>*>(key.place(configuration)) = std::move(entries);
    }
  }
  origins_.set(key.name, {where, Origins::file});
}

void Reader::read_file(std::string_view text, const std::string& name) {
  toml::table root;
  try {
    root = toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    fail(fmt::format("not valid TOML: {}", error.description()), location(name, error.source()),
         "see configs/fashion_mnist.toml for the form");
  }
  for (const auto& [section_name, section_node] : root) {
    const std::string section(section_name.str());
    const toml::table* section_table = section_node.as_table();
    if (section_table == nullptr) known_key(section, location(name, section_node.source()));
    if (section_table->empty()) known_section(section, location(name, section_node.source()));
    for (const auto& [key_name, node] : *section_table) {
      const std::string where = location(name, node.source());
      known_section(section, where);
      read_node(known_key(section + "." + std::string(key_name.str()), where), node, where);
    }
  }
}

void Reader::read_override(const Override& override) {
  const std::string where = "command line";
  const Key& key = known_key(override.key, where);
  const std::string& text = override.value;
  switch (key.place(configuration).index()) {
    case 0: store(key, text, where); break;
    case 1: store(key, parse_integer(text), text, where); break;
    case 2: store(key, parse_number(text), text, where); break;
    case 3:
      store(key,
            text == "true"    ? std::optional(true)
            : text == "false" ? std::optional(false)
                              : std::nullopt,
            text, where);
      break;
    case 4: {
      std::vector<std::optional<double>> entries;
      for (const std::string& part : split_list(text)) entries.push_back(parse_number(part));
      store(key, entries, text, where);
      break;
    }
    default: *std::get<std::vector<std::string>*>(key.place(configuration)) = split_list(text);
  }
  origins_.set(key.name, {where, Origins::command_line});
}

/// A run that goes on from a model is of the type of that model.
void take_type_of_init(Configuration::Model& model, const Origins& origins) {
  if (model.init.empty() || origins.source("model.type") != Origins::defaults) return;
  model.type = model_type_of(find_model_folder(model.init)).name;
}

}  // namespace

Configuration parse_configuration(std::string_view toml, const std::string& name,
                                  std::span<const Override> overrides) {
  Origins origins;
  Reader reader(origins);
  reader.read_file(toml, name);
  for (const Override& override : overrides) reader.read_override(override);
  take_type_of_init(reader.configuration.model, origins);
  apply_presets(reader.configuration, origins);
  check_consistency(reader.configuration, origins);
  return reader.configuration;
}

Configuration load_configuration(const std::filesystem::path& file, std::span<const Override> overrides) {
  if (file.empty()) return parse_configuration("", "the defaults", overrides);
  constexpr std::int64_t limit = 16 << 20;  // a configuration is a page; a dataset given by mistake is not
  const std::string text = read_file(file, limit, ErrorKind::usage);
  return parse_configuration(text, file.string(), overrides);
}

}  // namespace bireme
