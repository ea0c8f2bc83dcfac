#include "tests/support/ranks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "core/base/error.h"
#include "distributed/shared_memory.h"

namespace bireme::test {

std::string unique_name() {
  static std::atomic<int> count{0};
  return fmt::format("/bireme-test-{}-{}", getpid(), count.fetch_add(1));
}

void run_on_ranks(int n, const std::function<void(Communicator&)>& body) {
  const std::string name = unique_name();
  std::vector<std::jthread> ranks;
  for (int rank = 0; rank < n; ++rank) {
    ranks.emplace_back([&, rank] {
      SCOPED_TRACE(fmt::format("rank {} of {}", rank, n));
      try {
        const auto communicator =
            n == 1 ? make_single_process() : make_queued(join_shared_memory(name, rank, n));
        body(*communicator);
      } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
      }
    });
  }
}

RankProcesses::RankProcesses(int n, const std::function<int(Communicator&)>& body)
    : error_file_((std::filesystem::temp_directory_path() / unique_name().substr(1)).string()) {
  const std::string name = unique_name();
  for (int rank = 0; rank < n; ++rank) {
    const int pid = fork();
    if (pid != 0) {
      pids_.push_back(pid);
      continue;
    }
    const int file = open(error_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(file, STDERR_FILENO);
    int code = 1;
    try {
      const auto communicator = make_queued(join_shared_memory(name, rank, n));
      code = body(*communicator);
    } catch (const Error& error) {
      std::fprintf(stderr, "bireme: error: %s\n", error.what());
      code = error.exit_code();
    }
    _exit(code);
  }
}

RankProcesses::~RankProcesses() {
  for (const int pid : pids_) {
    if (pid <= 0) continue;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  std::filesystem::remove(error_file_);
}

void RankProcesses::send(int rank, int signal) const { kill(pid(rank), signal); }

int RankProcesses::wait(int rank, double timeout_seconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds);
  int status = 0;
  while (waitpid(pid(rank), &status, WNOHANG) == 0) {
    if (Clock::now() > deadline) {
      ADD_FAILURE() << "rank " << rank << " still runs after " << timeout_seconds << " s";
      return -1000;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  pids_[static_cast<std::size_t>(rank)] = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string RankProcesses::errors() const {
  std::ifstream file(error_file_);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace bireme::test
