#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

namespace bireme {

/// Remembers the ids of words: text repeats itself, and to look a word up costs a small part of building its
/// ids. A table of one cache line each, where a newer word takes the place of an older: no allocation, no
/// growth, nothing to clean up.
class WordCache {
 public:
  WordCache();
  /// The ids of a word, empty when it is not known (a word has at least one).
  std::span<const std::int32_t> find(std::string_view word) const;
  /// Keeps them if both fit.
  void keep(std::string_view word, std::span<const std::int32_t> ids);

 private:
  struct alignas(64) Slot {
    std::array<std::int32_t, 8> ids;
    std::array<char, 30> text;
    std::uint8_t length = 0, count = 0;
  };
  Slot& slot(std::string_view word) const;
  std::unique_ptr<Slot[]> slots_;
};

/// One cache for each thread that encodes at the same time, so that none waits: taken at the start of a text
/// and given back, still warm, at its end.
class WordCachePool {
 public:
  class Lease {
   public:
    explicit Lease(WordCachePool& pool) : pool_(pool), cache_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordCache& operator*() const { return *cache_; }

   private:
    WordCachePool& pool_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take();
  void give_back(std::unique_ptr<WordCache> cache);

  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace bireme
