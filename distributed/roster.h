#pragma once

#include <memory>
#include <string>

#include "distributed/shared_segment.h"

namespace bireme {

/// The processes of the job on this host: who they are, whether they live, and a sign of life of each. A
/// small page of shared memory made when the job starts; a rank is known here by its place on the host.
class Roster {
 public:
  struct Options {
    std::string name;  ///< of the shared memory, unique to the job
    int place = 0;     ///< of this rank on its host
    int size = 1;      ///< ranks on this host
    int world_rank = 0;
  };
  explicit Roster(const Options& options);
  Roster(const Roster&) = delete;
  Roster& operator=(const Roster&) = delete;
  /// Says that this rank has left, so that a rank that still waits for it learns it at once.
  ~Roster();

  int place() const { return place_; }
  int size() const { return size_; }
  int world_rank(int place) const;
  int pid(int place) const;

  /// A long phase without collectives (loading, evaluation, saving) calls this, so that waiting for it is no
  /// hang.
  void beat() const;
  /// When `place` last gave a sign of life, on the steady clock of this host.
  double last_beat_seconds(int place) const;

  /// `rank 1 (pid 77, stopped)`: with the state that the kernel knows.
  std::string describe(int place) const;
  bool is_stopped(int place) const;
  /// @throws Error (rank_lost) if that process died, or left while somebody still waits for it. A rank that
  /// is ending the job by itself (announce_end) is given five seconds first: the launcher is about to end us
  /// all.
  void require_alive(int place) const;

  void announce_end() const;
  /// True for the first rank of this host that asks: one report of a fault is enough.
  bool claim_report() const;

 private:
  struct Process;
  Process& process(int place) const;
  bool is_visible(int place) const;

  int place_;
  int size_;
  SharedSegment segment_;
};

/// Seconds of the monotonic clock, which the processes of a host share.
double steady_seconds();

}  // namespace bireme
