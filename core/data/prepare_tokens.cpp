#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/data/prepare_text.h"
#include "core/data/token_writer.h"
#include "core/io/hdf5.h"

namespace bireme {

namespace {

constexpr const char* kDataset = "tokens";
constexpr std::int64_t kSlab = 1 << 20;  // tokens read at once

/// The tokens of an HDF5 file, row by row or in one row.
class TokenFile {
 public:
  explicit TokenFile(const std::filesystem::path& path)
      : path_(path), reader_(path), shape_(reader_.shape(kDataset)), memory_(make_host_memory()) {
    const DType type = reader_.dtype(kDataset);
    if (shape_.rank() < 1 || shape_.rank() > 2 || shape_.elements() == 0)
      fail(fmt::format("`tokens` has the shape {}", to_string(shape_)));
    if (type != DType::u8 && type != DType::i32 && type != DType::i64)
      fail(fmt::format("`tokens` holds {}", to_string(type)));
  }

  std::int64_t tokens() const { return shape_.elements(); }
  /// Tokens of a row; 0 when all are one.
  std::int64_t row() const { return shape_.rank() == 2 ? shape_.back() : 0; }

  /// Gives all tokens to `use`, some whole rows at a time, with how many came before.
  template <class Use>
  void each_slab(const Use& use) const {
    const std::int64_t width = shape_.rank() == 2 ? shape_.back() : 1;
    const std::int64_t rows = std::max<std::int64_t>(kSlab / width, 1);
    std::vector<std::int32_t> ids;
    for (std::int64_t begin = 0; begin < shape_.front(); begin += rows) {
      const std::int64_t end = std::min(begin + rows, shape_.front());
      const Tensor slab = reader_.read(kDataset, begin, end, *memory_);
      ids.clear();
      if (slab.dtype() == DType::u8) take(slab.values<std::uint8_t>(), begin * width, ids);
      if (slab.dtype() == DType::i32) take(slab.values<std::int32_t>(), begin * width, ids);
      if (slab.dtype() == DType::i64) take(slab.values<std::int64_t>(), begin * width, ids);
      use(ids, begin * width);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::data, what, path_.string(),
                "give a dataset `tokens` of integers, [N] or [N, T], from 0 on");
  }

  template <class T>
  void take(std::span<T> values, std::int64_t before, std::vector<std::int32_t>& ids) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t id = values[i];
      if (id < 0 || id >= std::numeric_limits<std::int32_t>::max())
        fail(fmt::format("token {} is {}", before + static_cast<std::int64_t>(i), id));
      ids.push_back(static_cast<std::int32_t>(id));
    }
  }

  std::filesystem::path path_;
  Hdf5Reader reader_;
  Shape shape_;
  std::shared_ptr<Memory> memory_;
};

std::int64_t smallest_vocabulary(const TokenFile& file) {
  std::int32_t largest = 0;
  file.each_slab([&](const std::vector<std::int32_t>& ids, std::int64_t) {
    largest = std::max(largest, *std::max_element(ids.begin(), ids.end()));
  });
  return std::int64_t{largest} + 1;
}

}  // namespace

PreparedTokens prepare_tokens(const PrepareTokensOptions& options) {
  const TokenFile file(options.input);
  const std::int64_t vocabulary =
      options.vocabulary > 0 ? options.vocabulary
                             : std::max(smallest_vocabulary(file), std::int64_t{options.document_end} + 1);
  if (options.document_end >= vocabulary)
    throw Error(
        ErrorKind::usage,
        fmt::format("--document-end is {}, beyond the vocabulary of {}", options.document_end, vocabulary),
        "", "choose an id of the vocabulary");
  TokenWriter writer({.output = options.output,
                      .split = options.split,
                      .shard_size = options.shard_size,
                      .vocabulary = vocabulary,
                      .document_end = options.document_end,
                      .tokenizer = nullptr,
                      .replace = options.replace});
  const std::int64_t row = file.row();
  file.each_slab([&](const std::vector<std::int32_t>& ids, std::int64_t before) {
    const std::span<const std::int32_t> all(ids);
    std::size_t begin = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::int64_t next = before + static_cast<std::int64_t>(i) + 1;
      const bool ends_row = row > 0 && next % row == 0;
      if (ids[i] != options.document_end && !ends_row) continue;
      writer.append(all.subspan(begin, i + 1 - begin));
      writer.end_document();
      begin = i + 1;
    }
    writer.append(all.subspan(begin));
    if (options.progress) options.progress(before + std::ssize(ids), file.tokens(), writer.tokens());
  });
  writer.finish();
  return {options.output, writer.documents(), writer.tokens()};
}

}  // namespace bireme
