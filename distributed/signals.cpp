#include "distributed/signals.h"

#include <unistd.h>

namespace bireme {

namespace {

// The one thing that a signal handler may touch.
volatile std::sig_atomic_t received = 0;

constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells have it

extern "C" void remember_signal(int signal) {
  if (signal == SIGINT && received == SIGINT) _exit(kInterruptedExit);
  received = signal;
}

}  // namespace

SignalFlag::SignalFlag() {
  received = 0;
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // file input and output goes on
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    action.sa_handler = kSignals[i] == SIGPIPE ? SIG_IGN : remember_signal;
    sigaction(kSignals[i], &action, &before_[i]);
  }
}

SignalFlag::~SignalFlag() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
}

int SignalFlag::signal() const { return received; }

}  // namespace bireme
