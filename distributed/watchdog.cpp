#include "distributed/watchdog.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <utility>

namespace bireme {

namespace {

constexpr double kLongestPeriod = 1;
constexpr double kSmallestLateness = 1;

std::vector<const Activity::Member*> absent_members(const Activity& activity) {
  std::vector<const Activity::Member*> absent;
  for (const Activity::Member& member : activity.members()) {
    if (member.stamp->sequence < activity.self().stamp->sequence) absent.push_back(&member);
  }
  return absent;
}

std::string describe_absent(const Activity& activity) {
  const Roster& roster = activity.roster();
  std::string text;
  for (const Activity::Member* member : absent_members(activity)) {
    text += fmt::format("{}{}, last heard of {:.0f} s ago", text.empty() ? "" : "; ",
                        roster.describe(member->place),
                        steady_seconds() - roster.last_beat_seconds(member->place));
  }
  if (!text.empty()) return "not arrived: " + text;
  for (const Activity::Member& member : activity.members()) {
    if (roster.is_stopped(member.place)) text += (text.empty() ? "" : "; ") + roster.describe(member.place);
  }
  if (!text.empty()) return "arrived, but not going on: " + text;
  return activity.has_other_hosts()
             ? "all ranks of this host have arrived: look for the report of another host"
             : "all ranks have arrived, and none goes on";
}

}  // namespace

double timeout_from_environment() {
  const char* text = std::getenv("BIREME_TIMEOUT_SECONDS");
  if (text == nullptr || *text == '\0') return WatchdogOptions{}.timeout_seconds;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end == '\0' && seconds >= 0 && seconds < 1e9) return seconds;
  throw Error(ErrorKind::usage, fmt::format("`{}` is no number of seconds", text), "BIREME_TIMEOUT_SECONDS",
              "give a number such as 600, or 0 for no timeout");
}

Watchdog::Watchdog(Communicator& world, WatchdogOptions options)
    : world_(world), options_(std::move(options)) {
  watch(world);
  if (options_.timeout_seconds <= 0 || watched_.empty()) return;
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Watchdog::watch(const Communicator& communicator) {
  const std::lock_guard lock(mutex_);
  for (auto activity : {communicator.activity(), communicator.device_activity()})
    if (activity) watched_.push_back(std::move(activity));
}

void Watchdog::run(const std::stop_token& stop) {
  const double period = std::min(kLongestPeriod, options_.timeout_seconds / 4);
  const double lateness = std::max(kSmallestLateness, options_.timeout_seconds / 10);
  std::mutex sleeping;
  std::condition_variable_any woken;
  double restarted = steady_seconds(), last_look = restarted;
  while (!stop.stop_requested()) {
    std::unique_lock lock(sleeping);
    woken.wait_for(lock, stop, std::chrono::duration<double>(period), [] { return false; });
    const double now = steady_seconds();
    if (now - last_look > period + lateness) restarted = now;
    last_look = now;
    if (!stop.stop_requested()) look(restarted);
  }
}

void Watchdog::look(double restarted) {
  const std::lock_guard lock(mutex_);
  for (const auto& activity : watched_) {
    const Stamp& own = *activity->self().stamp;
    const std::uint64_t sequence = own.sequence;
    if (own.since_seconds == 0) continue;
    const double silent = steady_seconds() - std::max(restarted, activity->last_news_seconds());
    if (silent <= options_.timeout_seconds) continue;
    // Still the same collective: it did not end, nor another begin, while its stamps were read.
    if (own.sequence == sequence && own.since_seconds != 0)
      end(*activity, steady_seconds() - own.since_seconds);
  }
}

void Watchdog::end(const Activity& activity, double waited_seconds) {
  const Stamp& own = *activity.self().stamp;
  const Roster& roster = activity.roster();
  const Error error(
      ErrorKind::hang,
      fmt::format("{} (collective {} of its communicator) has not finished for {:.0f} s",
                  to_string(Operation::unpack(own.operation)), own.sequence.load(), waited_seconds),
      fmt::format("{} on {}", roster.describe(activity.self().place), world_.placement().host),
      describe_absent(activity) + "; see their output for the cause, then start again with --resume");
  if (roster.claim_report() && options_.report) options_.report(error);
  world_.abort(error.exit_code());
  std::terminate();  // not reached; GCC 12 forgets the attribute of a virtual call
}

}  // namespace bireme
