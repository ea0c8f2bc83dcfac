#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "distributed/communicator.h"

namespace bireme {

struct WatchdogOptions {
  double timeout_seconds = 600;  ///< without progress or a sign of life of those waited for; 0: off
  /// Prints the report; called on the watchdog's thread, by one rank of a host.
  std::function<void(const Error&)> report;
};

/// The default timeout, or BIREME_TIMEOUT_SECONDS of the environment.
/// @throws Error (usage) if that is no number of seconds
double timeout_from_environment();

/// Looks about once a second whether a collective has been waiting for longer than the timeout. If so it
/// reports an Error (hang) that names the operation, its number and bytes, this rank, and the ranks that have
/// not arrived, and ends every rank of the job with exit code 6. Its thread only reads stamps in shared
/// memory: it takes no lock of the communicators and makes no MPI call before the end. It measures the
/// silence of ranks of its own host; each host has such a thread.
///  - Ranks that are waited for and call Communicator::beat() are busy, and not hanging.
///  - If the watchdog itself was late (a suspended process or machine), time starts again.
class Watchdog {
 public:
  /// @param world  outlives the watchdog; watched as well
  Watchdog(Communicator& world, WatchdogOptions options);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() = default;

  /// Adds a communicator, such as an axis of the mesh.
  void watch(const Communicator& communicator);

 private:
  void run(const std::stop_token& stop);
  void look(double restarted);
  [[noreturn]] void end(const Activity& activity, double waited_seconds);

  Communicator& world_;
  WatchdogOptions options_;
  std::mutex mutex_;  // of the list below only
  std::vector<std::shared_ptr<const Activity>> watched_;
  std::jthread thread_;
};

}  // namespace bireme
