#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace bireme::test {

/// How a job of several ranks ended.
struct JobEnd {
  int code = -1;                   ///< mpirun's exit code; 128 + s where signal s ended it
  double seconds = 0;              ///< from the call of wait() on, which follows the fault
  std::string errors;              ///< standard error of all ranks, mpirun's own lines among it
  std::vector<pid_t> left_behind;  ///< ranks that outlived mpirun

  /// The lines that begin with "bireme: error:".
  std::vector<std::string> error_lines() const;
};

/// The program under `mpirun`, running while the test does something to it.
class Job {
 public:
  explicit Job(const std::string& words, int ranks = 2);
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  /// Kills what is left of it.
  ~Job();

  pid_t launcher() const { return launcher_; }
  /// Waits until the processes of all ranks are there; that of rank r is the r-th that mpirun started.
  std::vector<pid_t> ranks();
  /// Waits until the condition holds. Fails the test when the job ends before, or after a minute.
  void wait_until(const std::string& what, const std::function<bool()>& holds);
  /// Waits for the end. A job that has not ended after a minute is killed, and the test fails.
  JobEnd wait();

 private:
  bool has_ended();

  int rank_count_;
  TemporaryFolder folder_;
  std::vector<pid_t> seen_;
  pid_t launcher_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

}  // namespace bireme::test
