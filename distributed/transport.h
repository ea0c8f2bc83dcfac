#pragma once

#include <memory>
#include <string>

#include "distributed/activity.h"
#include "distributed/reduction.h"

namespace bireme {

/// Where a rank sits.
struct Placement {
  std::string host;
  int local_rank = 0;
  int local_size = 1;
};

/// Blocking collectives over host memory: what the queue of a communicator runs, one at a time. Every rank of
/// the group makes the same calls in the same order. Sums are taken in a fixed order of ranks: the same bits
/// on every rank and in every repeat. All throw Error (rank_lost) when another rank is gone.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void all_reduce(const Elements& inout, Reduce reduce) = 0;
  /// `in` holds size() equal shares; `out` receives the reduction of the rank's own share, and may be that
  /// share of `in`.
  virtual void reduce_scatter(const Elements& in, const Elements& out, Reduce reduce) = 0;
  /// `out` receives the shares in order of rank; `in` may be the rank's own share of `out`.
  virtual void all_gather(const Elements& in, const Elements& out) = 0;
  virtual void broadcast(const Elements& inout, int root) = 0;
  virtual void barrier() = 0;
  /// One group for each colour, ordered by (key, rank).
  virtual std::unique_ptr<Transport> split(int color, int key) = 0;

  virtual Placement placement() const = 0;
  virtual std::shared_ptr<const Activity> activity() const = 0;
  /// The sum by the message-passing library's own all-reduce, to compare with; false if there is none.
  virtual bool library_all_reduce(const Elements&) { return false; }
  /// Ends all ranks of the job with this code, within seconds.
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

}  // namespace bireme
