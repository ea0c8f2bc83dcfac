#include "core/text/word_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace bireme {

namespace {

constexpr std::size_t kSlots = 1 << 14;  // 1 MiB: what a core keeps close

}  // namespace

WordCache::WordCache() : slots_(std::make_unique<Slot[]>(kSlots)) { static_assert(sizeof(Slot) == 64); }

WordCache::Slot& WordCache::slot(std::string_view word) const {
  return slots_[XXH3_64bits(word.data(), word.size()) % kSlots];
}

std::span<const std::int32_t> WordCache::find(std::string_view word) const {
  const Slot& at = slot(word);
  if (at.length != word.size() || std::memcmp(at.text.data(), word.data(), word.size()) != 0) return {};
  return {at.ids.data(), at.count};
}

void WordCache::keep(std::string_view word, std::span<const std::int32_t> ids) {
  Slot& at = slot(word);
  if (word.empty() || word.size() > at.text.size() || ids.size() > at.ids.size()) return;
  std::copy(word.begin(), word.end(), at.text.begin());
  std::copy(ids.begin(), ids.end(), at.ids.begin());
  at.length = static_cast<std::uint8_t>(word.size());
  at.count = static_cast<std::uint8_t>(ids.size());
}

std::unique_ptr<WordCache> WordCachePool::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<WordCache> cache = std::move(idle_.back());
      idle_.pop_back();
      return cache;
    }
  }
  return std::make_unique<WordCache>();
}

void WordCachePool::give_back(std::unique_ptr<WordCache> cache) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(cache));
}

}  // namespace bireme
