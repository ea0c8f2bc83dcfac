#include "distributed/roster.h"

#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr double kGraceSeconds = 5;  // mpirun needs about two to end a job

/// What /proc says of a process: its state letter, and when it started, which tells it from a later one of
/// the same id.
struct KernelView {
  char state;
  std::uint64_t started;
};

std::optional<KernelView> look_up(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name_end = line.rfind(')');  // the name in parentheses may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  KernelView view{};
  fields >> view.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> view.started;
  return view;
}

std::uint64_t pid_namespace() {
  struct stat info {};
  return stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

}  // namespace

struct Roster::Process {
  enum class State : int { absent, joined, ending, left };

  std::atomic<int> pid;
  std::atomic<std::uint64_t> started;
  std::atomic<std::uint64_t> pid_namespace;
  std::atomic<int> world_rank;
  std::atomic<double> beat_seconds;
  std::atomic<State> state;
  std::atomic<bool> has_reported;  // of place 0: of the whole host
};

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Roster::Roster(const Options& options)
    : place_(options.place),
      size_(options.size),
      segment_({.name = options.name,
                .part_bytes = sizeof(Process),
                .index = options.place,
                .parts = options.size},
               [&](std::byte* part) {
                 auto& self = *reinterpret_cast<Process*>(part);
                 const auto view = look_up(getpid());
                 self.pid = getpid();
                 self.started = view ? view->started : 0;
                 self.pid_namespace = bireme::pid_namespace();
                 self.world_rank = options.world_rank;
                 self.beat_seconds = steady_seconds();
                 self.state = Process::State::joined;
               }) {}

Roster::~Roster() { process(place_).state = Process::State::left; }

Roster::Process& Roster::process(int place) const {
  return *reinterpret_cast<Process*>(segment_.part(place));
}

int Roster::world_rank(int place) const { return process(place).world_rank; }

int Roster::pid(int place) const { return process(place).pid; }

void Roster::beat() const { process(place_).beat_seconds = steady_seconds(); }

double Roster::last_beat_seconds(int place) const { return process(place).beat_seconds; }

bool Roster::is_visible(int place) const {
  // In containers of their own, ranks do not see each other's process ids.
  return process(place).pid_namespace == process(place_).pid_namespace && process(place).started != 0;
}

bool Roster::is_stopped(int place) const {
  if (!is_visible(place)) return false;
  const auto view = look_up(process(place).pid);
  return view && (view->state == 'T' || view->state == 't');
}

std::string Roster::describe(int place) const {
  return fmt::format("rank {} (pid {}{})", world_rank(place), pid(place),
                     is_stopped(place) ? ", stopped" : "");
}

void Roster::require_alive(int place) const {
  const Process::State state = process(place).state;
  if (state == Process::State::ending)
    std::this_thread::sleep_for(std::chrono::duration<double>(kGraceSeconds));
  if (state == Process::State::ending || state == Process::State::left) {
    throw Error(ErrorKind::rank_lost,
                fmt::format("rank {} left while other ranks still waited for it", world_rank(place)),
                fmt::format("pid {}", pid(place)), "see the output of that rank for the first error");
  }
  if (!is_visible(place)) return;
  const auto view = look_up(process(place).pid);
  if (view && view->state != 'Z' && view->state != 'X' && view->started == process(place).started) return;
  throw Error(
      ErrorKind::rank_lost, fmt::format("rank {} was lost: its process died", world_rank(place)),
      fmt::format("pid {}", pid(place)),
      "see the output of that rank, and the kernel's log for lack of memory; then start again with --resume");
}

void Roster::announce_end() const { process(place_).state = Process::State::ending; }

bool Roster::claim_report() const { return !process(0).has_reported.exchange(true); }

}  // namespace bireme
