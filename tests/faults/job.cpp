#include "tests/faults/job.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

namespace bireme::test {

namespace {

using Clock = std::chrono::steady_clock;

// Far beyond what any of these jobs takes on a busy machine; a job that hangs is what it is for.
constexpr double kLongestSeconds = 60;
constexpr double kGraceSeconds = 5;

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

/// Children of a process that run the program itself, in the order in which they were started.
std::vector<pid_t> children_running_the_program(pid_t parent) {
  std::ifstream list("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children");
  std::vector<pid_t> found;
  for (pid_t child; list >> child;) {
    std::error_code gone;
    if (std::filesystem::read_symlink("/proc/" + std::to_string(child) + "/exe", gone) == BIREME_PROGRAM)
      found.push_back(child);
  }
  return found;
}

bool is_running(pid_t process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/stat");
  std::string text((std::istreambuf_iterator<char>(status)), {});
  const auto state = text.rfind(')');
  return state != std::string::npos && text.compare(state, 3, ") Z") != 0;
}

}  // namespace

std::vector<std::string> JobEnd::error_lines() const {
  std::vector<std::string> lines;
  std::istringstream all(errors);
  for (std::string line; std::getline(all, line);)
    if (line.starts_with("bireme: error:")) lines.push_back(line);
  return lines;
}

Job::Job(const std::string& words, int ranks) : rank_count_(ranks) {
  const std::string command = "exec '" BIREME_MPIRUN "' -n " + std::to_string(ranks) +
                              " --oversubscribe --bind-to none '" BIREME_PROGRAM "' " + words + " >'" +
                              (folder_.path() / "output").string() + "' 2>'" +
                              (folder_.path() / "errors").string() + "'";
  launcher_ = ::fork();
  if (launcher_ == 0) {
    // Open MPI refuses root, which is what one is in a container.
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
}

Job::~Job() {
  if (!has_ended()) {
    ::kill(launcher_, SIGKILL);
    ::waitpid(launcher_, &status_, 0);
  }
  for (const pid_t rank : seen_)
    if (is_running(rank)) ::kill(rank, SIGKILL);
}

bool Job::has_ended() {
  if (!ended_) ended_ = ::waitpid(launcher_, &status_, WNOHANG) == launcher_;
  return ended_;
}

std::vector<pid_t> Job::ranks() {
  wait_until("all ranks to start", [this] {
    seen_ = children_running_the_program(launcher_);
    return std::ssize(seen_) == rank_count_;
  });
  return seen_;
}

void Job::wait_until(const std::string& what, const std::function<bool()>& holds) {
  const auto began = Clock::now();
  while (!holds()) {
    if (has_ended() || seconds_since(began) > kLongestSeconds) {
      FAIL() << "waited in vain for " << what << ":\n" << folder_.read("errors");
    }
    nap();
  }
}

JobEnd Job::wait() {
  const auto began = Clock::now();
  while (!has_ended()) {
    if (const auto now = children_running_the_program(launcher_); now.size() > seen_.size()) seen_ = now;
    if (seconds_since(began) > kLongestSeconds) {
      ADD_FAILURE() << "the job hangs:\n" << folder_.read("errors");
      ::kill(launcher_, SIGKILL);
    }
    nap();
  }
  JobEnd end{.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_),
             .seconds = seconds_since(began),
             .errors = folder_.read("errors"),
             .left_behind = {}};
  // mpirun kills its ranks and leaves; they are gone a moment later.
  const auto ended = Clock::now();
  do {
    end.left_behind.clear();
    std::copy_if(seen_.begin(), seen_.end(), std::back_inserter(end.left_behind), is_running);
    nap();
  } while (!end.left_behind.empty() && seconds_since(ended) < kGraceSeconds);
  return end;
}

}  // namespace bireme::test
