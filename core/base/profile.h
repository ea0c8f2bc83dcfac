#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace bireme {

/// Where the time of training steps goes, by the name of each operation. Given to a tape, it is told when an
/// operation has run; work outside of tapes is added by measure(). Measures how long the calling thread took,
/// hence what the operation took where kernels run before they return. One thread at a time.
///
/// Times are exclusive: what runs inside an operation (a recomputed block) counts for itself alone.
class Profile {
 public:
  struct Entry {
    std::int64_t calls = 0;
    double forward_seconds = 0, backward_seconds = 0;
    double outside_seconds = 0;  ///< of measure(), which is no operation of a tape

    double seconds() const { return forward_seconds + backward_seconds + outside_seconds; }
  };

  /// What follows is no part of what was before: the next of the calls below measures from here.
  void mark() { mark_ = Clock::now(); }
  /// The operation ran forward since the last of these calls.
  void forward(std::string_view name);
  /// The operation ran backward since then.
  void backward(std::string_view name);
  /// Runs `work`, such as a step of the optimiser or the wait for a batch, and returns what it returns.
  template <class Work>
  decltype(auto) measure(std::string_view name, Work&& work) {
    const Ending ending(*this, name);
    return std::forward<Work>(work)();
  }

  /// A whole step took so long: the measure of all shares.
  void end_step(double seconds);

  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  std::int64_t steps() const { return steps_; }
  double step_seconds() const { return step_seconds_; }

  /// For people: operations, those that took longest first, with calls and milliseconds of a step and the
  /// share of it. Last what no operation accounts for.
  std::string table() const;
  /// The same as one JSON object: {"steps", "step_seconds", "unaccounted_seconds", "operations": [{"name",
  /// "calls", "forward_seconds", "backward_seconds", "outside_seconds", "share"}]}, sums over all steps.
  std::string json() const;

 private:
  using Clock = std::chrono::steady_clock;

  /// Adds the time since mark() to an entry, however its scope is left.
  class Ending {
   public:
    Ending(Profile& profile, std::string_view name) : profile_(profile), name_(name) { profile.mark(); }
    ~Ending();
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;

   private:
    Profile& profile_;
    std::string_view name_;
  };

  Entry& entry(std::string_view name);
  double since_mark();
  double unaccounted_seconds() const;

  std::map<std::string, Entry, std::less<>> entries_;
  std::int64_t steps_ = 0;
  double step_seconds_ = 0;
  Clock::time_point mark_ = Clock::now();
};

}  // namespace bireme
