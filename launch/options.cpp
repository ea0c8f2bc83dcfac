#include "launch/options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <boost/program_options.hpp>

#include "core/base/error.h"
#include "launch/numbers.h"

namespace bireme {

namespace po = boost::program_options;

Options::Options(std::string program, std::string purpose)
    : program_(std::move(program)), purpose_(std::move(purpose)) {
  flag("json", "print the result as one JSON object on standard output");
  flag("help", "show this text");
}

Options& Options::declare(Declared declared) {
  // --json and --help, declared first, stay at the end of the list.
  const auto at = declared_.size() < 2 ? declared_.end() : declared_.end() - 2;
  declared_.insert(at, std::move(declared));
  return *this;
}

Options& Options::flag(std::string name, std::string help) {
  return declare({std::move(name), "", std::move(help), Kind::flag, false, {}});
}
Options& Options::value(std::string name, std::string placeholder, std::string help,
                        std::optional<std::string> fallback) {
  return declare(
      {std::move(name), std::move(placeholder), std::move(help), Kind::single, false, std::move(fallback)});
}
Options& Options::required(std::string name, std::string placeholder, std::string help) {
  return declare({std::move(name), std::move(placeholder), std::move(help), Kind::single, true, {}});
}
Options& Options::list(std::string name, std::string placeholder, std::string help) {
  return declare({std::move(name), std::move(placeholder), std::move(help), Kind::list, false, {}});
}
Options& Options::required_list(std::string name, std::string placeholder, std::string help) {
  return declare({std::move(name), std::move(placeholder), std::move(help), Kind::list, true, {}});
}
Options& Options::positional(std::string name, std::string placeholder, std::string help) {
  return declare({std::move(name), std::move(placeholder), std::move(help), Kind::positional, true, {}});
}
Options& Options::configuration(std::vector<std::string> keys) {
  keys_ = std::move(keys);
  return *this;
}
Options& Options::example(std::string command_line) {
  examples_.push_back(std::move(command_line));
  return *this;
}

const Options::Declared* Options::find(const std::string& name) const {
  const auto found =
      std::find_if(declared_.begin(), declared_.end(), [&](const auto& d) { return d.name == name; });
  return found == declared_.end() ? nullptr : &*found;
}

std::vector<std::string> Options::known_names() const {
  std::vector<std::string> names = keys_;
  for (const Declared& declared : declared_)
    if (declared.kind != Kind::positional) names.push_back(declared.name);
  return names;
}

void Options::fail(const std::string& problem, const std::string& remedy) const {
  throw Error(ErrorKind::usage, problem, program_,
              remedy.empty() ? fmt::format("`{} --help` lists the options", program_) : remedy);
}

namespace {

/// Scripts write `--flag=true`; Boost's flags take no value.
std::vector<std::string> without_flag_values(Arguments arguments, const std::vector<std::string>& flags) {
  std::vector<std::string> words;
  for (const std::string& word : arguments) {
    const auto is_value_of = [&](const std::string& flag, const char* value) {
      return word == "--" + flag + "=" + value;
    };
    const auto on =
        std::find_if(flags.begin(), flags.end(), [&](const auto& f) { return is_value_of(f, "true"); });
    const bool off =
        std::any_of(flags.begin(), flags.end(), [&](const auto& f) { return is_value_of(f, "false"); });
    if (!off) words.push_back(on == flags.end() ? word : "--" + *on);
  }
  return words;
}

std::string without_dashes(const std::string& name) {
  return name.substr(std::min(name.find_first_not_of('-'), name.size()));
}

}  // namespace

bool Options::parse(Arguments arguments) {
  po::options_description description;
  std::vector<std::string> flags;
  for (const Declared& declared : declared_) {
    if (declared.kind == Kind::flag) {
      description.add_options()(declared.name == "help" ? "help,h" : declared.name.c_str(), "");
      flags.push_back(declared.name);
    } else if (declared.kind == Kind::single) {
      description.add_options()(declared.name.c_str(), po::value<std::string>(), "");
    } else if (declared.kind == Kind::list) {
      description.add_options()(declared.name.c_str(), po::value<std::vector<std::string>>()->multitoken(),
                                "");
    }
  }
  for (const std::string& key : keys_) description.add_options()(key.c_str(), po::value<std::string>(), "");

  try {
    using Style = po::command_line_style::style_t;
    const po::parsed_options parsed = po::command_line_parser(without_flag_values(arguments, flags))
                                          .options(description)
                                          .style(Style::unix_style & ~Style::allow_guessing)
                                          .run();
    const auto asks_for_help = [](const auto& option) { return option.string_key == "help"; };
    if (std::any_of(parsed.options.begin(), parsed.options.end(), asks_for_help)) {
      fmt::print("{}", help());
      return false;
    }
    for (const auto& option : parsed.options) store(option.string_key, option.value);
  } catch (const po::unknown_option& error) {
    const std::string name = without_dashes(error.get_option_name());
    const std::string nearest = nearest_name(name, known_names());
    fail(fmt::format("unknown option `--{}`", name),
         nearest.empty() ? "" : fmt::format("did you mean `--{}`?", nearest));
  } catch (const po::error& error) {
    fail(error.what());
  }
  check_required();
  return true;
}

void Options::store(const std::string& name, const std::vector<std::string>& values) {
  if (name.empty()) {
    const auto word = std::find_if(declared_.begin(), declared_.end(),
                                   [](const auto& d) { return d.kind == Kind::positional; });
    if (word == declared_.end() || given_.count(word->name) != 0)
      fail(fmt::format("unexpected word `{}`", values.front()));
    given_[word->name] = values;
  } else if (std::find(keys_.begin(), keys_.end(), name) != keys_.end()) {
    overrides_.push_back({name, values.front()});
  } else if (find(name)->kind == Kind::list) {
    given_[name].insert(given_[name].end(), values.begin(), values.end());
  } else {
    given_[name] = values;
  }
}

void Options::check_required() const {
  for (const Declared& declared : declared_) {
    if (!declared.required || has(declared.name)) continue;
    if (declared.kind == Kind::positional) fail(fmt::format("{} is missing", declared.placeholder));
    fail(fmt::format("`--{} {}` is missing", declared.name, declared.placeholder));
  }
}

bool Options::has(const std::string& name) const { return given_.count(name) != 0; }

const std::string& Options::text(const std::string& name) const {
  if (const auto found = given_.find(name); found != given_.end()) return found->second.back();
  const Declared* declared = find(name);
  if (declared == nullptr || !declared->fallback) fail(fmt::format("`--{}` is needed here", name));
  return *declared->fallback;
}

std::int64_t Options::integer(const std::string& name, std::int64_t low, std::int64_t high) const {
  const auto value = parse_integer(text(name));
  if (!value) fail(fmt::format("`--{}` is `{}`, not a whole number", name, text(name)));
  if (*value < low || *value > high)
    fail(fmt::format("`--{}` is {}, outside {} to {}", name, *value, low, high));
  return *value;
}

double Options::number(const std::string& name, double low, double high) const {
  const auto value = parse_number(text(name));
  if (!value) fail(fmt::format("`--{}` is `{}`, not a number", name, text(name)));
  if (!(*value >= low && *value <= high))
    fail(fmt::format("`--{}` is {}, outside {} to {}", name, *value, low, high));
  return *value;
}

const std::string& Options::choice(const std::string& name, const std::vector<std::string>& choices) const {
  const std::string& value = text(name);
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return value;
  const std::string nearest = nearest_name(value, choices);
  fail(fmt::format("`--{}` is `{}`, which is none of {}", name, value, fmt::join(choices, ", ")),
       nearest.empty() ? "" : fmt::format("did you mean `{}`?", nearest));
}

std::vector<std::string> Options::texts(const std::string& name) const {
  const auto found = given_.find(name);
  if (found != given_.end()) return found->second;
  const Declared* declared = find(name);
  return declared != nullptr && declared->fallback ? std::vector{*declared->fallback}
                                                   : std::vector<std::string>{};
}

std::vector<std::int64_t> Options::integers(const std::string& name, std::int64_t low,
                                            std::int64_t high) const {
  std::vector<std::int64_t> numbers;
  for (const std::string& word : texts(name))
    for (const std::string& part : split_list(word)) {
      const auto value = parse_integer(part);
      if (!value) fail(fmt::format("`--{}` has `{}`, not a whole number", name, part));
      if (*value < low || *value > high)
        fail(fmt::format("`--{}` has {}, outside {} to {}", name, *value, low, high));
      numbers.push_back(*value);
    }
  return numbers;
}

std::string Options::help() const {
  std::string usage = "Usage: " + program_, table;
  std::size_t widest = 0;
  std::vector<std::string> left;
  for (const Declared& d : declared_) {
    const std::string dots = d.kind == Kind::list ? "..." : "";
    const std::string shape = d.kind == Kind::positional ? d.placeholder
                              : d.kind == Kind::flag     ? "--" + d.name
                                                         : "--" + d.name + " " + d.placeholder + dots;
    if (d.required) usage += " " + shape;
    left.push_back(shape);
    widest = std::max(widest, shape.size());
  }
  for (std::size_t i = 0; i < declared_.size(); ++i) {
    const Declared& d = declared_[i];
    table += fmt::format("  {:<{}}  {}{}\n", left[i], widest, d.help,
                         d.fallback && !d.fallback->empty() ? fmt::format(" (default {})", *d.fallback) : "");
  }
  if (!keys_.empty()) {
    usage += " [--SECTION.KEY VALUE ...]";
    table += fmt::format("  {:<{}}  any configuration key; `bireme train --help-config` lists all {}\n",
                         "--SECTION.KEY VALUE", widest, keys_.size());
  }
  std::string text = fmt::format("{}: {}\n\n{} [options]\n\nOptions:\n{}", program_, purpose_, usage, table);
  if (!examples_.empty()) text += "\nExamples:\n";
  for (const std::string& example : examples_) text += "  " + example + "\n";
  return text;
}

}  // namespace bireme
