#pragma once

#include <filesystem>

namespace bireme {

/// Where the log of a process goes.
struct LogOptions {
  std::filesystem::path folder;  ///< the run's, or empty: standard error only
  int rank = 0;
  bool is_verbose = false;  ///< debug lines too
};

/// Sets spdlog's default logger, which core and the rest write to. Rank 0 writes `log.txt` in the run folder
/// and shows its lines on standard error; other ranks write `logs/rank-00003.log` and show only warnings and
/// errors, marked [r3]. Each line is one write, so that lines of different ranks do not mix. A log that
/// cannot be written is reported once and never stops a run.
void open_log(const LogOptions& options);

}  // namespace bireme
