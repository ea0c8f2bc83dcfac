#pragma once

#include <cstddef>
#include <string>

namespace bireme {

/// Memory shared by the ranks of one host: one part of equal size for each, zero when fresh. Each rank
/// reserves its own part, so that the part lies on its NUMA node and a full /dev/shm is an error and not a
/// bus error later. The name goes away as soon as all have attached, so nothing is left behind whatever
/// happens afterwards.
class SharedSegment {
 public:
  struct Options {
    std::string name;  ///< unique to the job and the purpose, the same on all participants
    std::size_t part_bytes = 0;
    int index = 0;  ///< which part is this rank's
    int parts = 1;
    double timeout_seconds = 120;  ///< for the others to come
  };

  /// Returns when all participants have attached, having seen what each wrote in `prepare(own part)`.
  /// @throws Error (other) when the memory cannot be had, Error (rank_lost) when a participant does not come
  template <class Prepare>
  SharedSegment(const Options& options, const Prepare& prepare) : SharedSegment(options) {
    prepare(part(options.index));
    wait_for_all(options);
  }
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;
  ~SharedSegment();

  std::byte* part(int index) const;

 private:
  explicit SharedSegment(const Options& options);
  void wait_for_all(const Options& options);

  std::byte* base_ = nullptr;
  std::size_t part_bytes_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace bireme
