#include "core/text/byte_trie.h"

#include <algorithm>
#include <cstring>

namespace bireme {

namespace {

/// The entries below one node, which share their first `depth` bytes.
struct Range {
  std::size_t begin, end, depth;
};

}  // namespace

ByteTrie::ByteTrie(std::vector<std::pair<std::string, std::int32_t>> entries) {
  std::sort(entries.begin(), entries.end());
  std::vector<Range> ranges{{0, entries.size(), 0}};  // of each node
  nodes_.emplace_back();
  labels_.push_back(0);
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    if (begin < end && entries[begin].first.size() == depth && depth > 0)
      nodes_[node].value = entries[begin++].second;  // the shortest comes first
    nodes_[node].first = static_cast<std::uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = entries[begin].first[depth];
      std::size_t next = begin;
      while (next < end && entries[next].first[depth] == label) ++next;
      ranges.push_back({begin, next, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(static_cast<unsigned char>(label));
      ++nodes_[node].count;
      begin = next;
    }
  }
  std::fill(std::begin(root_child_), std::end(root_child_), 0);
  for (std::uint32_t child = 1; child <= nodes_[0].count; ++child) root_child_[labels_[child]] = child;
}

ByteTrie::Match ByteTrie::longest(std::string_view text, std::size_t position) const {
  Match best;
  if (position >= text.size()) return best;
  std::uint32_t at = root_child_[static_cast<unsigned char>(text[position])];
  for (std::size_t i = position + 1; at != 0; ++i) {
    const Node& node = nodes_[at];
    if (node.value >= 0) best = {node.value, i - position};
    if (i >= text.size() || node.count == 0) break;
    const unsigned char* labels = labels_.data() + node.first;
    const void* found = std::memchr(labels, static_cast<unsigned char>(text[i]), node.count);
    if (found == nullptr) break;
    at = node.first + static_cast<std::uint32_t>(static_cast<const unsigned char*>(found) - labels);
  }
  return best;
}

std::pair<std::size_t, ByteTrie::Match> ByteTrie::find(std::string_view text, std::size_t position) const {
  if (!empty())
    for (; position < text.size(); ++position)
      if (root_child_[static_cast<unsigned char>(text[position])] != 0)
        if (const Match match = longest(text, position); match.value >= 0) return {position, match};
  return {text.size(), {}};
}

}  // namespace bireme
