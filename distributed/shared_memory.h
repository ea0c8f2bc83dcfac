#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distributed/roster.h"
#include "distributed/shared_counter.h"
#include "distributed/shared_segment.h"
#include "distributed/transport.h"

namespace bireme {

/// Ranks of one host reduce through mapped memory. Each rank has three slots of one piece. Pieces that stay
/// in cache pass through three phases, in which all ranks work on different parts of the same piece:
///     stage    copy what the others need of me into my slot,
///     combine  reduce my part of the piece over all slots in order of rank; put the result into my slot and
///     my memory, collect  copy the other parts' results out of the others' slots,
/// and while piece i is staged, i - 1 is combined and i - 2 collected. A rank's memory is thus read once and
/// written once.
class SharedMemoryTransport final : public Transport {
 public:
  struct Options {
    std::string name;  ///< of the shared memory, unique to this group; starts with /
    int rank = 0;
    int size = 1;
    std::shared_ptr<const Roster> roster;
    bool has_other_hosts = false;  ///< the group is a part of a communicator over several hosts
  };
  explicit SharedMemoryTransport(const Options& options);

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  void all_reduce(const Elements& inout, Reduce reduce) override;
  void reduce_scatter(const Elements& in, const Elements& out, Reduce reduce) override;
  void all_gather(const Elements& in, const Elements& out) override;
  void broadcast(const Elements& inout, int root) override;
  void barrier() override;
  std::unique_ptr<Transport> split(int color, int key) override;
  Placement placement() const override;
  std::shared_ptr<const Activity> activity() const override { return activity_; }
  [[noreturn]] void abort(int exit_code) override;

 private:
  struct Header;
  using Phase = std::function<void(std::int64_t piece)>;
  void run_pieces(std::int64_t pieces, const Phase& stage, const Phase& combine, const Phase& collect);
  void wait_for_all(SharedCounter Header::*counter, std::uint32_t target);
  Header& header(int rank) const;
  std::byte* slot(int rank, std::int64_t piece) const;
  std::int64_t elements_per_slot(DType type) const;
  /// The sources of this rank's part at `offset` bytes of everybody's slot, with the own one read from its
  /// memory.
  std::span<const std::byte* const> sources(std::int64_t piece, std::int64_t offset, const std::byte* own);

  Options options_;
  std::int64_t slot_bytes_;
  std::shared_ptr<const SharedSegment> segment_;
  std::shared_ptr<const Activity> activity_;
  std::vector<const std::byte*> sources_;
  std::int64_t pieces_done_ = 0;  ///< over the life of the group; the counters are its lower 32 bits
  int splits_ = 0;
  int spins_;
};

/// Joins `size` ranks of this host that call with the same name: a job without a launcher.
std::unique_ptr<Transport> join_shared_memory(const std::string& name, int rank, int size);

}  // namespace bireme
