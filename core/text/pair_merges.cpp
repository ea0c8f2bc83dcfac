#include "core/text/pair_merges.h"

#include <bit>
#include <limits>
#include <queue>

namespace bireme {

namespace {

constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();
// Below this, looking through all pairs for each merge costs less than a queue.
constexpr std::size_t kShort = 48;

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

std::size_t hash_of(std::uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio (Knuth, vol. 3, §6.4)
  return static_cast<std::size_t>(pair ^ pair >> 32);
}

}  // namespace

PairMerges::PairMerges(const std::vector<PairMerge>& merges) : slots_(std::bit_ceil(2 * merges.size() + 1)) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t pair = pair_of(merges[rank].left, merges[rank].right);
    std::size_t at = hash_of(pair) & (slots_.size() - 1);
    while (slots_[at].pair != ~std::uint64_t{0} && slots_[at].pair != pair)
      at = (at + 1) & (slots_.size() - 1);
    slots_[at] = {pair, {static_cast<std::int32_t>(rank), merges[rank].result}};
  }
}

PairMerges::Rule PairMerges::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  for (std::size_t at = hash_of(pair) & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == pair) return slots_[at].rule;
    if (slots_[at].pair == ~std::uint64_t{0}) return {kNoRank, -1};
  }
}

void PairMerges::apply(std::vector<std::int32_t>& ids) const {
  if (ids.size() < 2 || slots_.empty()) return;
  ids.size() <= kShort ? apply_to_short(ids) : apply_to_long(ids);
}

void PairMerges::apply_to_short(std::vector<std::int32_t>& ids) const {
  Rule rules[kShort];  // rules[i]: of ids[i] and its right neighbour
  std::size_t count = ids.size();
  for (std::size_t i = 0; i + 1 < count; ++i) rules[i] = find(ids[i], ids[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (rules[i].rank < rules[best].rank) best = i;
    if (rules[best].rank == kNoRank) break;
    ids[best] = rules[best].result;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      rules[i - 1] = rules[i];
    }
    if (best > 0) rules[best - 1] = find(ids[best - 1], ids[best]);
    if (best + 1 < count) rules[best] = find(ids[best], ids[best + 1]);
  }
  ids.resize(count);
}

void PairMerges::apply_to_long(std::vector<std::int32_t>& ids) const {
  struct Candidate {
    std::int32_t rank, position, left, right, result;
    bool operator<(const Candidate& other) const {  // the queue gives the greatest first
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto n = static_cast<std::int32_t>(ids.size());
  std::vector<std::int32_t> previous(ids.size()), next(ids.size());
  std::priority_queue<Candidate> candidates;
  const auto consider = [&](std::int32_t left) {
    if (left < 0 || next[left] >= n) return;
    const Rule rule = find(ids[left], ids[next[left]]);
    if (rule.rank != kNoRank) candidates.push({rule.rank, left, ids[left], ids[next[left]], rule.result});
  };
  for (std::int32_t i = 0; i < n; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
  }
  for (std::int32_t i = 0; i < n; ++i) consider(i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    const std::int32_t left = best.position, right = ids[left] < 0 ? n : next[left];
    // An earlier merge may have changed either; then the pair that is there now was pushed too.
    if (right >= n || ids[left] != best.left || ids[right] != best.right) continue;
    ids[left] = best.result;
    ids[right] = -1;
    next[left] = next[right];
    if (next[right] < n) previous[next[right]] = left;
    consider(previous[left]);
    consider(left);
  }
  std::erase(ids, -1);
}

}  // namespace bireme
