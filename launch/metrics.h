#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/tensorboard.h"

namespace bireme {

/// The named numbers of a run. Set during a step, written once per logged step to `metrics.jsonl` (one JSON
/// object a line: "step", then the numbers in the order in which they were set) and to TensorBoard events in
/// `tensorboard/`. Rank 0 owns one. Names are snake_case with the unit last; a value that is not finite is
/// written as null. A file that cannot be written never stops a run: what is lost is counted, and reported
/// once.
class Metrics {
 public:
  /// @param folder       the run's; made if missing
  /// @param resume_step  the step that the run resumes after, 0 for a fresh start: later lines are removed
  Metrics(const std::filesystem::path& folder, std::int64_t resume_step);

  /// Sets a number of the current step; the last value of a name stays.
  void set(std::string_view name, double value);
  /// Writes the numbers that were set since the last write, and forgets them.
  void write(std::int64_t step);
  /// The numbers that wait to be written.
  const std::vector<Metric>& current() const { return current_; }
  /// Records that no file took.
  std::int64_t lost() const { return lines_.lost() + events_.file().lost(); }

 private:
  static void warn_once(const AppendFile& file, bool& has_warned);

  std::vector<Metric> current_;
  AppendFile lines_;
  TensorboardWriter events_;
  bool has_warned_of_lines_ = false, has_warned_of_events_ = false;
};

/// One line of metrics.jsonl, with its newline.
std::string metrics_line(std::int64_t step, std::span<const Metric> metrics);

/// The curves of a run: for each name, its finite values by step, as `metrics.jsonl` holds them.
struct MetricHistory {
  using Curve = std::vector<std::pair<std::int64_t, double>>;
  std::map<std::string, Curve> curves;

  /// Nothing when no line has that name.
  const Curve* find(const std::string& name) const;
};
/// @param run      a run folder, or a metrics file. A last line that is torn is left out
/// @throws Error   (data) when there is none, or a line is not a JSON object with a step, naming the line
MetricHistory read_metrics(const std::filesystem::path& run);

}  // namespace bireme
