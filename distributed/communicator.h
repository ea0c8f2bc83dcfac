#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"
#include "distributed/activity.h"
#include "distributed/transport.h"

namespace bireme {

/// A collective in flight, made by communicators.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void wait() = 0;
  virtual std::string name() const = 0;
};

/// The handle of a collective in flight. The tensors are kept alive, and must not be touched, until wait()
/// returns.
class [[nodiscard]] Work {
 public:
  /// Finished already.
  Work() = default;
  explicit Work(std::shared_ptr<Pending> pending) : pending_(std::move(pending)) {}
  Work(Work&&) noexcept = default;
  Work& operator=(Work&& other) noexcept;
  /// Destroying work that nobody waited for is a fault of the program: logged, and an assertion in debug
  /// builds.
  ~Work();

  /// @throws Error as the collective does
  void wait();

 private:
  std::shared_ptr<Pending> pending_;
};

/// A group of ranks that exchange tensors. Every rank makes the same calls in the same order; collectives of
/// one communicator run in that order, beside the caller. Sums add in a fixed order of ranks: every rank gets
/// the same bits, in every repeat. Calls come from one thread; destroying a communicator finishes what is
/// under way. All throw Error (rank_lost) when another rank is gone, after which the communicator is of no
/// more use.
class Communicator {
 public:
  Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// f32, f64, i32, i64, and bf16, which is summed in fp32 and rounded once.
  virtual Work all_reduce(const Tensor& inout, Reduce reduce) = 0;
  /// out = the reduction of share `rank` of `in`, which holds size() shares of out's size. `out` may be that
  /// share.
  virtual Work reduce_scatter(const Tensor& in, const Tensor& out, Reduce reduce) = 0;
  /// out = the shares of all ranks, in order. `in` may be this rank's share of `out`.
  virtual Work all_gather(const Tensor& in, const Tensor& out) = 0;
  virtual Work broadcast(const Tensor& inout, int root) = 0;
  virtual void barrier() = 0;
  /// One communicator for each colour (not negative), its ranks ordered by (key, rank).
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  virtual Placement placement() const = 0;
  /// What the ranks of this host are doing here, for the watchdog; null for a single process.
  virtual std::shared_ptr<const Activity> activity() const { return nullptr; }
  /// The same of collectives that run on a GPU, beside the others; null where there are none.
  virtual std::shared_ptr<const Activity> device_activity() const { return nullptr; }
  /// A sign of life in a long phase without collectives.
  void beat() const;
  /// The message-passing library's own all-reduce, to compare with; false if there is none.
  virtual bool library_all_reduce(const Tensor&) { return false; }
  /// Ends every rank of the job with this code, within seconds.
  [[noreturn]] virtual void abort(int exit_code) = 0;

  /// Small values of the host, at once.
  double all_reduce_value(double value, Reduce reduce);
  std::vector<std::string> gather_text(const std::string& text);
  std::string broadcast_text(const std::string& text, int root);

 private:
  std::shared_ptr<Memory> scratch_;
};

/// A group of one.
std::unique_ptr<Communicator> make_single_process();

/// A communicator whose collectives run on one thread of its own, first in, first out; wait() lends a hand.
/// It counts and stamps what it runs for the watchdog.
std::unique_ptr<Communicator> make_queued(std::unique_ptr<Transport> transport);

struct ConnectOptions {
  int ranks_per_host = 0;  ///< for tests: take this many ranks for a host; 0: the real hosts
};

/// The communicator of the job. Under mpirun or srun --mpi=pmix: all its ranks, over MPI and shared memory.
/// Otherwise the single process, without starting MPI. To be destroyed last, after everything that it was
/// handed to.
/// @throws Error (usage) when a launcher started several tasks that do not know of each other
std::unique_ptr<Communicator> connect(const ConnectOptions& options = {});

struct AllReduceRate {
  double bytes_per_second = 0;
  double library_bytes_per_second = 0;  ///< MPI_Allreduce of the same buffer; 0 without MPI
};

/// Best of several all-reduces of fp32, ours and the library's by turns. Collective.
AllReduceRate measure_all_reduce(Communicator& communicator, std::int64_t bytes);

}  // namespace bireme
