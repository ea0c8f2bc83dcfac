#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/reduction.h"
#include "distributed/roster.h"

namespace bireme {

enum class Collective : std::uint8_t {
  none,
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  barrier,
  split
};

/// What a collective does, in terms that all ranks must agree on.
struct Operation {
  Collective collective = Collective::none;
  DType type = DType::u8;
  Reduce reduce = Reduce::sum;
  std::int64_t bytes = 0;  ///< below 2^40

  std::uint64_t packed() const;
  static Operation unpack(std::uint64_t packed);
};

/// `all_reduce of 64.0 MiB (fp32, sum)`
std::string to_string(const Operation& operation);

/// What one rank is doing in one communicator. In shared memory: written by that rank, read by its own
/// watchdog and by its peers', without locks. Zero-filled memory is a rank that has done nothing yet.
struct Stamp {
  std::atomic<std::uint64_t> sequence;   ///< collectives begun
  std::atomic<std::uint64_t> operation;  ///< packed; of the collective under way or the last one
  std::atomic<double> since_seconds;     ///< begin of the collective under way; 0: none is
};

/// The stamps of those ranks of a communicator that share this host.
class Activity {
 public:
  struct Member {
    int rank;   ///< in the communicator
    int place;  ///< in the roster
    Stamp* stamp;
  };
  struct Options {
    std::shared_ptr<const void> memory = {};  ///< keeps the stamps mapped
    std::shared_ptr<const Roster> roster;
    std::vector<Member> members;
    int self = 0;  ///< index of this rank among the members
    bool has_other_hosts = false;
  };
  explicit Activity(Options options) : options_(std::move(options)) {}

  void begin(const Operation& operation) const;
  void end() const;

  const Roster& roster() const { return *options_.roster; }
  const std::vector<Member>& members() const { return options_.members; }
  const Member& self() const { return options_.members[static_cast<std::size_t>(options_.self)]; }
  bool has_other_hosts() const { return options_.has_other_hosts; }

  /// When something was last heard of the collective under way: this rank began it, another arrived in it, or
  /// an absent one gave a sign of life. An arrival counts, or else the moment between the last one and the
  /// end would look like a hang.
  double last_news_seconds() const;

  /// @throws Error (other) naming both when a peer that has arrived at the same collective runs another one.
  /// To be called while the peers cannot leave the collective.
  void require_same_operation() const;

 private:
  Options options_;
};

}  // namespace bireme
