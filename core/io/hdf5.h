#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/memory.h"
#include "core/tensor/tensor.h"

namespace bireme {

/// Reads an HDF5 file that may come from a stranger. A hostile file can make the plain library return other
/// files' bytes or allocate without bounds, so everything is checked before it is read:
///   - only hard links, at every component of a path (no soft, external or user-defined links);
///   - no external storage, no virtual datasets, no filters but shuffle, deflate and fletcher32, no plugins;
///   - rank ≤ 6, fixed-size integers and floats, and no more data than the stored bytes can expand to;
///   - attributes of at most 64 Ki entries: numbers, or strings of fixed or variable length.
/// All methods are thread-safe: the library is not, so one lock guards it. Paths look like `group/dataset`;
/// the empty path is the root.
/// @throws Error (data) naming the file and the object, from every method
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& file);
  Hdf5Reader(Hdf5Reader&&) noexcept;
  Hdf5Reader& operator=(Hdf5Reader&&) noexcept;
  ~Hdf5Reader();

  bool has(std::string_view path) const;
  bool is_group(std::string_view path) const;
  /// Names in a group, in byte order.
  std::vector<std::string> members(std::string_view group = {}) const;

  Shape shape(std::string_view dataset) const;
  /// The type that read() returns: f64, f32 (also for half precision), i64 (also for u32 and u64), i32 (also
  /// for i8, i16, u16), u8 (also for booleans).
  DType dtype(std::string_view dataset) const;
  Tensor read(std::string_view dataset, Memory& memory) const;
  /// Entries [begin, end) of the first dimension.
  Tensor read(std::string_view dataset, std::int64_t begin, std::int64_t end, Memory& memory) const;
  /// The same into bytes that the caller owns; the dataset must be of type u8 and rank 1.
  void read_bytes(std::string_view dataset, std::int64_t begin, std::int64_t end, std::uint8_t* into) const;

  bool has_attribute(std::string_view path, const std::string& name) const;
  double number(std::string_view path, const std::string& name) const;
  std::int64_t integer(std::string_view path, const std::string& name) const;
  std::string text(std::string_view path, const std::string& name) const;
  std::vector<double> numbers(std::string_view path, const std::string& name) const;
  std::vector<std::string> texts(std::string_view path, const std::string& name) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// Writes an HDF5 file such that damage cannot pass unseen: format 1.10, every dataset chunked with a
/// fletcher32 checksum (of 1,500 single-bit flips none went unnoticed; library defaults let 27 % through).
/// Groups on the way to a dataset are made as needed. The file is whole only after close(); destroyed before
/// that, it is removed.
/// @throws Error (checkpoint) naming the file and the attempt, also for a full disk, from every method
class Hdf5Writer {
 public:
  /// @param expected_bytes  disk space to set aside at once, so that a full disk is noticed before hours of
  /// work
  explicit Hdf5Writer(const std::filesystem::path& file, std::int64_t expected_bytes = 0);
  Hdf5Writer(Hdf5Writer&&) noexcept;
  Hdf5Writer& operator=(Hdf5Writer&&) noexcept;
  ~Hdf5Writer();

  /// Declares a dataset of type u8, i32, i64, f32 or f64 to be filled by slabs. A chunk, the unit of reading,
  /// is `chunk_rows` entries of the first dimension.
  void create(const std::string& dataset, DType type, const Shape& shape, std::int64_t chunk_rows);
  /// The same for numbers from 0 on that are stored in 2 or 4 bytes and written from tensors of type i32.
  void create_unsigned(const std::string& dataset, int bytes, const Shape& shape, std::int64_t chunk_rows);
  /// Writes `values` over entries [begin, begin + values.shape()[0]) of the first dimension.
  void write(const std::string& dataset, std::int64_t begin, const Tensor& values);
  /// The same from bytes, for a dataset of type u8 and rank 1.
  void write_bytes(const std::string& dataset, std::int64_t begin, const std::uint8_t* bytes,
                   std::int64_t count);
  /// create() and write() of a whole tensor, in chunks of about 64 KiB.
  void write(const std::string& dataset, const Tensor& values);

  void attribute(const std::string& path, const std::string& name, double value);
  void attribute(const std::string& path, const std::string& name, std::int64_t value);
  void attribute(const std::string& path, const std::string& name, const std::string& value);

  /// Writes the root attribute `complete` = 1, flushes and closes, every step checked.
  void close();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bireme
