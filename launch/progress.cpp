#include "launch/progress.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "launch/numbers.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

/// Cells that UTF-8 text takes, none of it wide.
int cells(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string cut_to(std::string_view text, int width) {
  std::size_t end = 0;
  for (int used = 0; end < text.size(); ++end)
    if ((text[end] & 0xC0) != 0x80 && ++used > width) break;
  return std::string(text.substr(0, end));
}

}  // namespace

ProgressOptions terminal_progress(std::string label, std::int64_t total, std::int64_t start, int rank) {
  const auto write = [](std::string_view text) {
    // A terminal that went away is no reason to stop.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  };
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  return {.label = std::move(label),
          .total = total,
          .start = start,
          .is_shown = rank == 0,
          .columns = terminal_columns(STDERR_FILENO),
          .write = write,
          .now = now};
}

Progress::Progress(ProgressOptions options)
    : options_(std::move(options)),
      started_(options_.now()),
      last_shown_(-INFINITY),
      last_time_(started_),
      last_done_(options_.start) {}

Progress::~Progress() {
  if (bar_is_open_) options_.write("\n");
}

void Progress::update(std::int64_t done, std::string_view details) {
  if (!options_.is_shown) return;
  const double now = options_.now();
  const double left = seconds_left(now, done);
  const bool is_bar = options_.columns > 0, is_last = done >= options_.total;
  if (!is_last && now - last_shown_ < (is_bar ? options_.bar_seconds : options_.line_seconds)) return;
  last_shown_ = now;
  if (!is_bar) {
    options_.write(line(done, details, left) + "\n");
  } else {
    // Column 1, text, erase what an earlier, longer one left over.
    options_.write(fmt::format("\r{}\x1b[K{}", bar(done, details, left), is_last ? "\n" : ""));
    bar_is_open_ = !is_last;
  }
}

double Progress::seconds_left(double now, std::int64_t done) {
  if (done > last_done_) {
    // Time and work of about the last five minutes, each fading alike: a long pause, such as an evaluation,
    // counts as its share of the time, however few steps it is seen in.
    const double fade = std::exp((last_time_ - now) / 300);
    recent_seconds_ = recent_seconds_ * fade + (now - last_time_);
    recent_units_ = recent_units_ * fade + static_cast<double>(done - last_done_);
    last_time_ = now;
    last_done_ = done;
  }
  if (recent_units_ == 0) return 0;
  return recent_seconds_ / recent_units_ *
         static_cast<double>(std::max<std::int64_t>(options_.total - done, 0));
}

std::string Progress::line(std::int64_t done, std::string_view details, double left) const {
  const bool is_last = done >= options_.total;
  return fmt::format("{} {}/{}{}{}  {} {}", options_.label, done, options_.total, details.empty() ? "" : "  ",
                     details, is_last ? "took" : "ETA",
                     short_duration(is_last ? options_.now() - started_ : left));
}

std::string Progress::bar(std::int64_t done, std::string_view details, double left) const {
  const double fraction =
      options_.total > 0 ? static_cast<double>(done) / static_cast<double>(options_.total) : 1;
  const std::string text = line(done, details, left);
  // The bar takes what the text leaves, within reason; the last column stays free, so that no terminal wraps.
  const int room = options_.columns - 1 - cells(text) - 10;
  if (room < 8) return cut_to(text, options_.columns - 1);
  return fmt::format("{} {:3.0f} %  {}", draw_bar(fraction, std::min(room, 30)), std::floor(100 * fraction),
                     text);
}

std::string draw_bar(double fraction, int width) {
  static constexpr const char* eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int filled = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * width * 8));
  std::string text = "▕";
  for (int cell = 0; cell < width; ++cell) {
    const int here = std::clamp(filled - cell * 8, 0, 8);
    text += here == 8 ? "█" : eighths[here];
  }
  return text + "▏";
}

}  // namespace bireme
