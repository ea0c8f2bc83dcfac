#include "tests/support/made_up_pictures.h"

#include "core/data/writer.h"

namespace bireme::test {

void write_made_up_pictures(const std::filesystem::path& folder, int pictures) {
  DatasetWriter writer({.output = folder, .classes = {"a", "b", "c"}, .shard_size = 6});
  for (int picture = 0; picture < pictures; ++picture) {
    EncodedPicture encoded{
        .bytes = {}, .height = kPictureSide, .width = kPictureSide, .channels = 1, .label = picture % 3};
    for (int pixel = 0; pixel < kPictureSide * kPictureSide; ++pixel)
      encoded.bytes.push_back(static_cast<std::uint8_t>((pixel * 7 + picture * 31) % 251));
    writer.append(std::move(encoded));
  }
  writer.finish({0.5}, {0.25});
}

}  // namespace bireme::test
