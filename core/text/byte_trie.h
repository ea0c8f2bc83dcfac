#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bireme {

/// A set of byte strings with a number each, for finding the longest of them at a place of a text. Nodes lie
/// in breadth-first order, so that the children of a node lie side by side and one memchr() over their labels
/// finds the next: 65,529 entries take 3 MiB, and building them is a sort. Read by any number of threads.
class ByteTrie {
 public:
  ByteTrie() : ByteTrie(std::vector<std::pair<std::string, std::int32_t>>{}) {}
  /// @param entries  not empty strings, no two alike; values from 0 on
  explicit ByteTrie(std::vector<std::pair<std::string, std::int32_t>> entries);

  struct Match {
    std::int32_t value = -1;  ///< -1: none of them is there
    std::size_t length = 0;
  };
  /// The longest entry that `text` begins with at `position`.
  Match longest(std::string_view text, std::size_t position) const;
  /// The first place from `position` on where an entry begins, and the longest there; text.size() and no
  /// match when there is none.
  std::pair<std::size_t, Match> find(std::string_view text, std::size_t position) const;

  bool empty() const { return labels_.size() <= 1; }

 private:
  struct Node {
    std::int32_t value = -1;
    std::uint32_t first = 0;  // of its children
    std::uint32_t count = 0;
  };
  std::vector<Node> nodes_;            // the root first
  std::vector<unsigned char> labels_;  // of each node: the byte that leads to it
  std::uint32_t root_child_[256];      // 0: none
};

}  // namespace bireme
