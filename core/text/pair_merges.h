#pragma once

#include <cstdint>
#include <vector>

namespace bireme {

/// One rule of byte-pair encoding: two neighbouring tokens become one.
struct PairMerge {
  std::int32_t left, right, result;
};

/// Byte-pair encoding (Sennrich et al. 2016): of all neighbouring pairs with a rule, the one whose rule comes
/// first is merged, the leftmost of several, until none is left.
class PairMerges {
 public:
  PairMerges() = default;
  /// @param merges  in the order of their rank
  explicit PairMerges(const std::vector<PairMerge>& merges);

  /// Merges in place.
  void apply(std::vector<std::int32_t>& ids) const;

 private:
  struct Rule {
    std::int32_t rank, result;
  };
  struct Slot {
    std::uint64_t pair = ~std::uint64_t{0};
    Rule rule{};
  };
  /// The rule for a pair; one with the last rank of all when there is none.
  Rule find(std::int32_t left, std::int32_t right) const;
  void apply_to_short(std::vector<std::int32_t>& ids) const;
  void apply_to_long(std::vector<std::int32_t>& ids) const;

  std::vector<Slot> slots_;  // open addressing, at most half full
};

}  // namespace bireme
