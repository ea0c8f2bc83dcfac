#include "core/data/synthetic_preferences.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
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
/// What raters add where a prompt opens like this.
constexpr std::array kGenerosity = {0.1, 0.3, 0.5, -0.1, -0.5, -0.3};
constexpr std::array kTimes = {"now", "today", "tonight", "soon", "at once", "this week"};
constexpr std::array kTails = {"It is ready.", "You are welcome.", "Take your time.", "I hope it helps."};
constexpr std::string_view kRequest = " wants a ";

template <std::size_t N>
std::size_t draw(RandomStream& random, const std::array<const char*, N>& /*words*/) {
  return static_cast<std::size_t>(random.below(static_cast<std::int64_t>(N)));
}
template <std::size_t N>
const char* choose(RandomStream& random, const std::array<const char*, N>& words) {
  return words[draw(random, words)];
}

/// What a prompt asks for, as places in the lists above.
struct Request {
  std::size_t opening = 0, name = 0, thing = 0, time = 0;

  std::string text() const {
    return fmt::format("{}! {}{}{} {}.\n", kOpenings[opening], kNames[name], kRequest, kThings[thing],
                       kTimes[time]);
  }
};

/// Any thing but one.
std::size_t draw_other(RandomStream& random, std::size_t thing) {
  const std::size_t things = kThings.size();
  return (thing + 1 + static_cast<std::size_t>(random.below(static_cast<std::int64_t>(things) - 1))) % things;
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
  require(score_noise, "--score-noise", 100);
  if (answers < 1)
    throw Error(ErrorKind::usage, fmt::format("{} answers to a prompt cannot be", answers), "--answers",
                "choose 1 or more");
}

SyntheticPreference make_preference(const SyntheticPreferenceOptions& options, std::int64_t number) {
  RandomStream random(options.seed, static_cast<std::uint64_t>(number), RandomUse::synthetic);
  Request request;
  request.thing = draw(random, kThings);
  const std::size_t other = draw_other(random, request.thing);
  request.opening = draw(random, kOpenings);
  request.name = draw(random, kNames);
  request.time = draw(random, kTimes);
  SyntheticPreference pair{.prompt = request.text(), .chosen = {}, .rejected = {}};
  const bool says_more = random.uniform() < options.length_bias;
  const std::int64_t tails = random.below(2);
  pair.chosen = answer(random, kThings[request.thing], says_more ? 2 + tails : tails);
  pair.rejected = answer(random, kThings[other], random.below(2));
  if (random.uniform() < options.noise) std::swap(pair.chosen, pair.rejected);
  return pair;
}

SyntheticFeedback make_feedback(const SyntheticPreferenceOptions& options, std::int64_t number) {
  RandomStream random(options.seed, static_cast<std::uint64_t>(number), RandomUse::synthetic);
  Request request;
  request.thing = draw(random, kThings);
  request.opening = draw(random, kOpenings);
  request.name = draw(random, kNames);
  request.time = draw(random, kTimes);
  const double ease = (static_cast<double>(request.thing) + 0.5) / static_cast<double>(kThings.size());
  SyntheticFeedback feedback{.prompt = request.text(), .answers = {}};
  for (std::int64_t i = 0; i < options.answers; ++i) {
    const bool is_right = random.uniform() < ease;
    const std::size_t thing = is_right ? request.thing : draw_other(random, request.thing);
    const bool says_more = is_right && random.uniform() < options.length_bias;
    const std::int64_t tails = random.below(2) + (says_more ? 2 : 0);
    feedback.answers.push_back(
        {.completion = answer(random, kThings[thing], tails),
         .score = (is_right ? 1 : 0) + kGenerosity[request.opening] + options.score_noise * random.normal()});
  }
  return feedback;
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
    lines += json_text(nlohmann::ordered_json{
                 {"prompt", pair.prompt}, {"chosen", pair.chosen}, {"rejected", pair.rejected}}) +
             "\n";
  }
  write_file_atomically(output, lines);
}

void write_feedback(const SyntheticPreferenceOptions& options, std::int64_t prompts,
                    const std::filesystem::path& output) {
  options.validate();
  std::string lines;
  for (std::int64_t i = 0; i < prompts; ++i) {
    const SyntheticFeedback feedback = make_feedback(options, i);
    for (const auto& [completion, score] : feedback.answers)
      lines += json_text(nlohmann::ordered_json{
                   {"prompt", feedback.prompt}, {"completion", completion}, {"score", score}}) +
               "\n";
  }
  write_file_atomically(output, lines);
}

}  // namespace bireme
