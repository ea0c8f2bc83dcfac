#pragma once

#include <array>
#include <csignal>

namespace bireme {

/// While it lives, SIGTERM, SIGUSR1 and the first SIGINT raise a flag and nothing else: the trainer looks at
/// it after each step, over all ranks, and saves before it leaves. A second SIGINT ends the process at once.
/// SIGPIPE is ignored, so that a closed output is a failed write and not the end of a training. One at a
/// time.
class SignalFlag {
 public:
  SignalFlag();
  SignalFlag(const SignalFlag&) = delete;
  SignalFlag& operator=(const SignalFlag&) = delete;
  /// Restores what was there before.
  ~SignalFlag();

  bool is_raised() const { return signal() != 0; }
  /// The last signal received, or 0.
  int signal() const;

 private:
  static constexpr std::array kSignals{SIGTERM, SIGUSR1, SIGINT, SIGPIPE};
  std::array<struct sigaction, kSignals.size()> before_{};
};

}  // namespace bireme
