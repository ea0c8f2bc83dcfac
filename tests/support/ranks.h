#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace bireme::test {

/// A name for shared memory that no other test uses.
std::string unique_name();

/// Runs `body` on n ranks that exchange through shared memory, each on a thread of this process, so that
/// expectations and captured variables work as usual. An exception fails the test, and the ranks that wait
/// for that one are released.
void run_on_ranks(int n, const std::function<void(Communicator&)>& body);

/// Runs `body` on n ranks that are processes of their own, to be stopped and killed. `body` returns the exit
/// code.
class RankProcesses {
 public:
  /// Standard error of all ranks goes to a file, see errors().
  RankProcesses(int n, const std::function<int(Communicator&)>& body);
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;
  /// Kills what still runs.
  ~RankProcesses();

  int pid(int rank) const { return pids_[static_cast<std::size_t>(rank)]; }
  void send(int rank, int signal) const;
  /// The exit code, minus the signal that killed it, or a test failure and -1000 when it still runs after the
  /// timeout.
  int wait(int rank, double timeout_seconds = 20);
  std::string errors() const;

 private:
  std::vector<int> pids_;
  std::string error_file_;
};

}  // namespace bireme::test
