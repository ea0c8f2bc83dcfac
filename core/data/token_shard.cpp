#include "core/data/token_shard.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace bireme {

TokenShard::TokenShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
                       std::int64_t first_token, const TokenManifest& manifest)
    : file_(std::move(path), std::move(entry), first_record, "tokens"),
      first_token_(first_token),
      vocabulary_(manifest.vocabulary),
      marks_targets_(manifest.marks_targets) {}

void TokenShard::check_place() const {
  const Hdf5Reader reader = file_.check_place();
  const std::int64_t first = reader.integer("", shard_names::first_token);
  if (first != first_token_)
    file_.fail(fmt::format("the shard begins with token {}, the manifest says {}", first, first_token_));
  const Shape shape = reader.shape(shard_names::tokens);
  if (shape.rank() != 1 || shape.front() != tokens())
    file_.fail(fmt::format("the shard has tokens {}, the manifest says {}", to_string(shape), tokens()));
  if (!marks_targets_) return;
  if (!reader.has(shard_names::targets)) file_.fail("the shard does not say which tokens are targets");
  if (reader.shape(shard_names::targets) != shape || reader.dtype(shard_names::targets) != DType::u8)
    file_.fail("the shard does not say of each token whether it is a target");
}

void TokenShard::load_index(const Hdf5Reader& reader) {
  const DType type = reader.dtype(shard_names::tokens);
  if (type != DType::i32 && type != DType::i64) file_.fail("its tokens are not integers");
  begins_document_ = reader.integer("", shard_names::begins_document) != 0;
  document_ends_ = read_shard_list<std::int64_t>(reader, shard_names::document_ends);
  std::int64_t last = 0;
  for (const std::int64_t end : document_ends_) {
    if (end <= last || end > tokens()) file_.fail("its documents do not follow one another");
    last = end;
  }
  if (std::ssize(document_ends_) != file_.records())
    file_.fail(fmt::format("{} documents end in the shard, the manifest says {}", document_ends_.size(),
                           file_.records()));
}

void TokenShard::read(std::int64_t begin, std::int64_t end, std::int32_t* into) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor values = opened().read(shard_names::tokens, begin, end, *memory);
  const auto take = [&]<class T>(const T* from) {
    for (std::int64_t i = 0; i < end - begin; ++i) {
      if (from[i] < 0 || from[i] >= vocabulary_)
        file_.fail(fmt::format("token {} of the dataset is {}, beyond the vocabulary of {}",
                               first_token_ + begin + i, from[i], vocabulary_));
      into[i] = static_cast<std::int32_t>(from[i]);
    }
  };
  values.dtype() == DType::i32 ? take(values.data<std::int32_t>()) : take(values.data<std::int64_t>());
}

void TokenShard::read_targets(std::int64_t begin, std::int64_t end, std::uint8_t* into) {
  opened().read_bytes(shard_names::targets, begin, end, into);
  if (std::any_of(into, into + (end - begin), [](std::uint8_t mark) { return mark > 1; }))
    file_.fail("its marks of targets are not all 0 or 1");
}

bool TokenShard::begins_document() {
  if (!file_.is_verified()) opened();
  return begins_document_;
}

const std::vector<std::int64_t>& TokenShard::document_ends() {
  if (!file_.is_verified()) opened();
  return document_ends_;
}

}  // namespace bireme
