#include "core/data/picture_shard.h"

#include <spdlog/fmt/fmt.h>

namespace bireme {

PictureShard::PictureShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
                           std::int64_t classes)
    : file_(std::move(path), std::move(entry), first_record, "images"), classes_(classes) {}

void PictureShard::load_index(const Hdf5Reader& reader) {
  offsets_ = read_shard_list<std::int64_t>(reader, shard_names::offsets);
  sizes_ = read_shard_list<std::int32_t>(reader, shard_names::sizes);
  labels_ = read_shard_list<std::int32_t>(reader, shard_names::labels);
  codecs_ = read_shard_list<std::uint8_t>(reader, shard_names::codec);
  const std::int64_t n = file_.records();
  if (std::ssize(offsets_) != n + 1 || std::ssize(sizes_) != 3 * n || std::ssize(labels_) != n ||
      std::ssize(codecs_) != n)
    file_.fail(fmt::format("the lists of the shard do not have {} entries", n));
  const Shape bytes = reader.shape(shard_names::bytes);
  if (bytes.rank() != 1 || offsets_.front() != 0 || offsets_.back() != bytes.front())
    file_.fail("the records of the shard do not cover its bytes");
  for (std::int64_t i = 0; i < n; ++i) check_record(i);
}

void PictureShard::check_record(std::int64_t i) const {
  const std::int64_t bytes = offsets_[i + 1] - offsets_[i];
  const std::int64_t height = sizes_[3 * i], width = sizes_[3 * i + 1], channels = sizes_[3 * i + 2];
  const bool is_raw = codecs_[i] == static_cast<std::uint8_t>(Codec::raw);
  const char* problem = bytes <= 0                                               ? "has no bytes"
                        : height < 1 || width < 1 || height * width > kMaxPixels ? "has an impossible size"
                        : channels != 1 && channels != 3                         ? "is neither grey nor RGB"
                        : codecs_[i] > static_cast<std::uint8_t>(Codec::png)     ? "has an unknown codec"
                        : is_raw && bytes != height * width * channels ? "does not have the bytes of its size"
                        : labels_[i] < -1 || labels_[i] >= classes_    ? "has a label beyond the classes"
                                                                       : nullptr;
  if (problem != nullptr) file_.fail(fmt::format("record {} {}", first() + i, problem));
}

EncodedPicture PictureShard::read(std::int64_t i) {
  const Hdf5Reader& reader = opened();
  EncodedPicture picture{.codec = static_cast<Codec>(codecs_[i]),
                         .bytes = {},
                         .height = sizes_[3 * i],
                         .width = sizes_[3 * i + 1],
                         .channels = sizes_[3 * i + 2],
                         .label = labels_[i]};
  picture.bytes.resize(static_cast<std::size_t>(offsets_[i + 1] - offsets_[i]));
  reader.read_bytes(shard_names::bytes, offsets_[i], offsets_[i + 1], picture.bytes.data());
  return picture;
}

const std::vector<std::int32_t>& PictureShard::labels() {
  if (!file_.is_verified()) opened();
  return labels_;
}

}  // namespace bireme
