#include "core/base/profile.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/base/json.h"

namespace bireme {

namespace {

using Row = std::pair<std::string, Profile::Entry>;

std::vector<Row> longest_first(const Profile& profile) {
  std::vector<Row> rows(profile.entries().begin(), profile.entries().end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.second.seconds() > b.second.seconds(); });
  return rows;
}

}  // namespace

Profile::Entry& Profile::entry(std::string_view name) {
  const auto found = entries_.find(name);
  return found != entries_.end() ? found->second : entries_[std::string(name)];
}

double Profile::since_mark() {
  const Clock::time_point now = Clock::now();
  return std::chrono::duration<double>(now - std::exchange(mark_, now)).count();
}

void Profile::forward(std::string_view name) {
  Entry& of = entry(name);
  ++of.calls;
  of.forward_seconds += since_mark();
}

void Profile::backward(std::string_view name) { entry(name).backward_seconds += since_mark(); }

Profile::Ending::~Ending() {
  Entry& of = profile_.entry(name_);
  ++of.calls;
  of.outside_seconds += profile_.since_mark();
}

void Profile::end_step(double seconds) {
  ++steps_;
  step_seconds_ += seconds;
}

double Profile::unaccounted_seconds() const {
  double rest = step_seconds_;
  for (const auto& [name, of] : entries_) rest -= of.seconds();
  return std::max(rest, 0.0);
}

std::string Profile::table() const {
  const double steps = std::max<double>(1, static_cast<double>(steps_)),
               whole = step_seconds_ > 0 ? step_seconds_ : 1;
  std::string text =
      fmt::format("{:<28} {:>10} {:>12} {:>12} {:>12} {:>7}\n", fmt::format("of {} steps", steps_),
                  "calls/step", "forward ms", "backward ms", "all ms/step", "share");
  const auto milliseconds = [&](double seconds) {
    return seconds == 0 ? std::string("-") : fmt::format("{:.3f}", 1e3 * seconds / steps);
  };
  for (const auto& [name, of] : longest_first(*this)) {
    text += fmt::format("{:<28} {:>10.1f} {:>12} {:>12} {:>12} {:>5.1f} %\n", name,
                        static_cast<double>(of.calls) / steps, milliseconds(of.forward_seconds),
                        milliseconds(of.backward_seconds), milliseconds(of.seconds()),
                        100 * of.seconds() / whole);
  }
  text += fmt::format("{:<28} {:>10} {:>12} {:>12} {:>12} {:>5.1f} %\n", "everything else", "", "", "",
                      milliseconds(unaccounted_seconds()), 100 * unaccounted_seconds() / whole);
  text += fmt::format("{:<28} {:>10} {:>12} {:>12} {:>12} {:>5.1f} %\n", "the step", "", "", "",
                      milliseconds(step_seconds_), 100.0);
  return text;
}

std::string Profile::json() const {
  nlohmann::ordered_json operations = nlohmann::ordered_json::array();
  for (const auto& [name, of] : longest_first(*this)) {
    operations.push_back({{"name", name},
                          {"calls", of.calls},
                          {"forward_seconds", of.forward_seconds},
                          {"backward_seconds", of.backward_seconds},
                          {"outside_seconds", of.outside_seconds},
                          {"share", step_seconds_ > 0 ? of.seconds() / step_seconds_ : 0.0}});
  }
  const nlohmann::ordered_json report = {{"steps", steps_},
                                         {"step_seconds", step_seconds_},
                                         {"unaccounted_seconds", unaccounted_seconds()},
                                         {"operations", operations}};
  return json_text(report, 1) + "\n";
}

}  // namespace bireme
