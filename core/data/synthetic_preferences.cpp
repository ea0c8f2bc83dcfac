#include "core/data/synthetic_preferences.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/tensor/random.h"

namespace bireme {

namespace {

constexpr std::array kNames = {"Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana",
                               "Ida", "Jon", "Kim",  "Leo", "Mia", "Ned",  "Ola", "Pia"};
constexpr std::array kThings = {"apple", "boat",  "chair", "drum", "egg",   "fork", "glove", "hat",
                                "iron",  "jar",   "kite",  "lamp", "map",   "nail", "oar",   "pen",
                                "quilt", "rope",  "spoon", "tent", "umbra", "vase", "wheel", "yarn",
                                "zip",   "brush", "clock", "desk", "flute", "gate", "horn",  "knife"};
constexpr std::array kOpenings = {"Hello", "Good day", "Please help", "One wish", "Listen", "Excuse me"};
constexpr std::array kTimes = {"now", "today", "tonight", "soon", "at once", "this week"};
constexpr std::array kTails = {"It is ready.", "You are welcome.", "Take your time.", "I hope it helps."};
constexpr std::string_view kRequest = " wants a ";

template <std::size_t N>
const char* choose(RandomStream& random, const std::array<const char*, N>& words) {
  return words[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(N)))];
}

std::string answer(RandomStream& random, const char* thing, std::int64_t tails) {
  std::string text = fmt::format("Here is a {}.", thing);
  for (std::int64_t i = 0; i < tails; ++i) text += fmt::format(" {}", choose(random, kTails));
  return text;
}

bool names(std::string_view text, std::string_view word) {
  const auto is_letter = [&](std::size_t i) {
    return i < text.size() && std::isalpha(static_cast<unsigned char>(text[i])) != 0;
  };
  for (std::size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1))
    if (!(at > 0 && is_letter(at - 1)) && !is_letter(at + word.size())) return true;
  return false;
}

}  // namespace

void SyntheticPreferenceOptions::validate() const {
  const auto require = [](double share, const char* name, double most) {
    if (!(share >= 0 && share <= most))
      throw Error(ErrorKind::usage, fmt::format("the share {} cannot be", share), name,
                  fmt::format("choose from 0 to {}", most));
  };
  require(noise, "--noise", 0.5);
  require(length_bias, "--length-bias", 1);
}

SyntheticPreference make_preference(const SyntheticPreferenceOptions& options, std::int64_t number) {
  RandomStream random(options.seed, static_cast<std::uint64_t>(number), RandomUse::synthetic);
  const auto things = static_cast<std::int64_t>(kThings.size());
  const std::int64_t asked = random.below(things), other = (asked + 1 + random.below(things - 1)) % things;
  SyntheticPreference pair;
  const char *opening = choose(random, kOpenings), *name = choose(random, kNames),
             *time = choose(random, kTimes);
  pair.prompt = fmt::format("{}! {}{}{} {}.\n", opening, name, kRequest,
                            kThings[static_cast<std::size_t>(asked)], time);
  const bool says_more = random.uniform() < options.length_bias;
  const std::int64_t tails = random.below(2);
  pair.chosen = answer(random, kThings[static_cast<std::size_t>(asked)], says_more ? 2 + tails : tails);
  pair.rejected = answer(random, kThings[static_cast<std::size_t>(other)], random.below(2));
  if (random.uniform() < options.noise) std::swap(pair.chosen, pair.rejected);
  return pair;
}

std::optional<double> gold_score(std::string_view prompt, std::string_view answer) {
  const std::size_t at = prompt.find(kRequest);
  if (at == std::string_view::npos) return {};
  prompt.remove_prefix(at + kRequest.size());
  const std::string_view asked = prompt.substr(0, prompt.find_first_of(" .\n"));
  if (std::ranges::find(kThings, asked) == kThings.end()) return {};
  const auto is_right = [&](std::string_view thing) { return names(answer, thing) == (thing == asked); };
  return std::ranges::all_of(kThings, is_right) ? 1 : 0;
}

void write_preferences(const SyntheticPreferenceOptions& options, std::int64_t pairs,
                       const std::filesystem::path& output) {
  options.validate();
  std::string lines;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const SyntheticPreference pair = make_preference(options, i);
    lines +=
        nlohmann::ordered_json{{"prompt", pair.prompt}, {"chosen", pair.chosen}, {"rejected", pair.rejected}}
            .dump() +
        "\n";
  }
  write_file_atomically(output, lines);
}

}  // namespace bireme
