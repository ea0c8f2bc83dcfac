#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace bireme {

/// Where and how progress is shown.
struct ProgressOptions {
  std::string label = "step";  ///< what is counted
  std::int64_t total = 0;
  std::int64_t start = 0;    ///< where a resumed run begins; it does not count into the rate
  bool is_shown = true;      ///< false on all ranks but 0
  int columns = 0;           ///< of the terminal; 0 writes plain lines
  double line_seconds = 10;  ///< least time between two plain lines
  double bar_seconds = 0.1;  ///< least time between two drawings of the bar
  std::function<void(std::string_view)> write;  ///< takes text for the terminal
  std::function<double()> now;                  ///< seconds of a clock that never jumps back
};
/// For standard error of this process, shown on rank 0.
ProgressOptions terminal_progress(std::string label, std::int64_t total, std::int64_t start, int rank);

/// How far long work is: on a terminal a bar with rate and time left, redrawn in place, elsewhere a plain
/// line every few seconds:   step 1200/5000  loss 2.913  31.4k images/s  ETA 12 min
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  /// Ends the bar's line, wherever the work stopped.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// @param done     units of work done, of the total
  /// @param details  what to show beside it, parts apart by two spaces: "loss 2.913  31.4k images/s"
  void update(std::int64_t done, std::string_view details = {});

 private:
  double seconds_left(double now, std::int64_t done);
  std::string line(std::int64_t done, std::string_view details, double left) const;
  std::string bar(std::int64_t done, std::string_view details, double left) const;

  ProgressOptions options_;
  double started_, last_shown_, last_time_;
  std::int64_t last_done_;
  double recent_seconds_ = 0, recent_units_ = 0;  // both fade; 0 before the first
  bool bar_is_open_ = false;
};

/// A bar of `width` cells, filled in eighths of a cell.
std::string draw_bar(double fraction, int width);

}  // namespace bireme
