#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <system_error>

#include "core/io/hdf5.h"
#include "core/io/hdf5_library.h"

namespace bireme {

using namespace hdf5;

struct Hdf5Writer::Implementation {
  struct Dataset {
    Object object;
    Shape shape;
    DType type;
  };

  Checker check;
  std::filesystem::path path;
  File file;
  std::map<std::string, Dataset> datasets;
  bool closed = false;

  ~Implementation() {
    const LibraryLock lock;
    datasets.clear();
    file = {};
    std::error_code ignored;
    if (!closed) std::filesystem::remove(path, ignored);
  }

  const Dataset& dataset(const std::string& name) const {
    const auto found = datasets.find(name);
    if (found == datasets.end()) check.fail(fmt::format("dataset `{}` was not declared", name));
    return found->second;
  }

  /// Sets disk space aside without changing the file's length, which is the library's business.
  void reserve(std::int64_t bytes) const {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    const int status =
        descriptor < 0 || fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 ? errno : 0;
    if (descriptor >= 0) ::close(descriptor);
    // Other failures only mean that this file system cannot reserve; a full one will still fail when written
    // to.
    if (status == ENOSPC || status == EDQUOT || status == EFBIG)
      check.fail(
          fmt::format("no room for its {} bytes ({})", bytes, std::generic_category().message(status)));
  }

  /// Gives back what reserve() set aside beyond the end of the finished file.
  void release_reserve() const {
    std::error_code failure;
    std::filesystem::resize_file(path, std::filesystem::file_size(path), failure);
    if (failure) check.fail(fmt::format("cannot trim it ({})", failure.message()));
  }

  void create(const std::string& dataset, DType type, hid_t stored_type, const Shape& shape,
              std::int64_t chunk_rows);

  Object open(const std::string& name) const {
    return Object(check(H5Oopen(file.get(), name.empty() ? "/" : name.c_str(), H5P_DEFAULT), "open " + name));
  }

  void write_rows(const std::string& name, const Dataset& to, std::int64_t begin, std::int64_t end,
                  const void* values) const {
    if (begin < 0 || begin > end || to.shape.rank() == 0 || end > to.shape.front())
      check.fail(fmt::format("{}: entries {} to {} lie outside {}", name, begin, end, to_string(to.shape)));
    hsize_t start[Shape::kMaxRank] = {}, count[Shape::kMaxRank];
    for (int i = 0; i < to.shape.rank(); ++i) count[i] = static_cast<hsize_t>(to.shape[i]);
    start[0] = static_cast<hsize_t>(begin);
    count[0] = static_cast<hsize_t>(end - begin);
    const Space file_space(check(H5Dget_space(to.object.get()), "write " + name));
    const Space memory_space(check(H5Screate_simple(to.shape.rank(), count, nullptr), "write " + name));
    check(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start, nullptr, count, nullptr),
          "write " + name);
    check(H5Dwrite(to.object.get(), memory_type(to.type), memory_space.get(), file_space.get(), H5P_DEFAULT,
                   values),
          "write " + name);
  }

  void write_attribute(const std::string& path_in_file, const std::string& name, hid_t type,
                       const void* value) const {
    const Object object = open(path_in_file);
    const Space space(check(H5Screate(H5S_SCALAR), "write attribute " + name));
    const Attribute attribute(
        check(H5Acreate2(object.get(), name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
              "make attribute " + name));
    check(H5Awrite(attribute.get(), type, value), "write attribute " + name);
  }
};

Hdf5Writer::Hdf5Writer(const std::filesystem::path& file, std::int64_t expected_bytes)
    : implementation_(std::make_unique<Implementation>()) {
  Implementation& self = *implementation_;
  self.check = {ErrorKind::checkpoint, file.string(),
                "make room on the disk or check its permissions, then start again"};
  self.path = file;
  self.closed = true;  // nothing to remove yet: an existing file that cannot be replaced stays
  const LibraryLock lock;
  const Properties access(self.check(H5Pcreate(H5P_FILE_ACCESS), "prepare to make it"));
  self.check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110), "choose its format");
  self.check(H5Pset_file_locking(access.get(), false, true), "prepare to make it");
  // Without times the same contents give the same bytes, whenever they are written.
  const Properties creation(self.check(H5Pcreate(H5P_FILE_CREATE), "prepare to make it"));
  self.check(H5Pset_obj_track_times(creation.get(), false), "prepare to make it");
  self.file =
      File(self.check(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "make it"));
  self.closed = false;
  if (expected_bytes > 0) self.reserve(expected_bytes);
}

Hdf5Writer::Hdf5Writer(Hdf5Writer&&) noexcept = default;
Hdf5Writer& Hdf5Writer::operator=(Hdf5Writer&&) noexcept = default;
Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::create(const std::string& dataset, DType type, const Shape& shape, std::int64_t chunk_rows) {
  const LibraryLock lock;
  implementation_->create(dataset, type, memory_type(type), shape, chunk_rows);
}

void Hdf5Writer::create_unsigned(const std::string& dataset, int bytes, const Shape& shape,
                                 std::int64_t chunk_rows) {
  const LibraryLock lock;
  implementation_->create(dataset, DType::i32, bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, shape, chunk_rows);
}

/// Callers hold the lock.
void Hdf5Writer::Implementation::create(const std::string& dataset, DType type, hid_t stored_type,
                                        const Shape& shape, std::int64_t chunk_rows) {
  if (shape.rank() == 0 || chunk_rows < 1)
    check.fail(dataset + ": needs a dimension and a chunk to be written by slabs");
  hsize_t sizes[Shape::kMaxRank], chunk[Shape::kMaxRank];
  for (int i = 0; i < shape.rank(); ++i) {
    sizes[i] = static_cast<hsize_t>(shape[i]);
    chunk[i] =
        static_cast<hsize_t>(std::max<std::int64_t>(shape[i], 1));  // a chunk cannot be empty, a dataset can
  }
  chunk[0] = std::min<hsize_t>(chunk[0], static_cast<hsize_t>(chunk_rows));
  const Space space(check(H5Screate_simple(shape.rank(), sizes, nullptr), "declare " + dataset));
  const Properties storage(check(H5Pcreate(H5P_DATASET_CREATE), "declare " + dataset));
  check(H5Pset_chunk(storage.get(), shape.rank(), chunk), "declare " + dataset);
  check(H5Pset_fletcher32(storage.get()), "declare " + dataset);
  check(H5Pset_obj_track_times(storage.get(), false), "declare " + dataset);
  const Properties link(check(H5Pcreate(H5P_LINK_CREATE), "declare " + dataset));
  check(H5Pset_create_intermediate_group(link.get(), 1), "declare " + dataset);
  Object object(check(H5Dcreate2(file.get(), dataset.c_str(), stored_type, space.get(), link.get(),
                                 storage.get(), H5P_DEFAULT),
                      "declare " + dataset));
  datasets[dataset] = {std::move(object), shape, type};
}

void Hdf5Writer::write(const std::string& dataset, std::int64_t begin, const Tensor& values) {
  const LibraryLock lock;
  const Implementation::Dataset& to = implementation_->dataset(dataset);
  Shape expected = to.shape;
  if (values.shape().rank() == expected.rank() && expected.rank() > 0) expected[0] = values.shape().front();
  if (!(values.shape() == expected) || values.dtype() != to.type)
    implementation_->check.fail(fmt::format("{}: {} {} does not fit into {} {}", dataset,
                                            to_string(values.dtype()), to_string(values.shape()),
                                            to_string(to.type), to_string(to.shape)));
  if (values.elements() > 0)
    implementation_->write_rows(dataset, to, begin, begin + values.shape().front(), values.raw());
}

void Hdf5Writer::write_bytes(const std::string& dataset, std::int64_t begin, const std::uint8_t* bytes,
                             std::int64_t count) {
  const LibraryLock lock;
  const Implementation::Dataset& to = implementation_->dataset(dataset);
  if (to.type != DType::u8 || to.shape.rank() != 1)
    implementation_->check.fail(dataset + ": is not a list of bytes");
  if (count > 0) implementation_->write_rows(dataset, to, begin, begin + count, bytes);
}

void Hdf5Writer::write(const std::string& dataset, const Tensor& values) {
  const std::int64_t rows = values.shape().front();
  const std::int64_t row_bytes =
      std::max<std::int64_t>(static_cast<std::int64_t>(values.bytes()) / std::max<std::int64_t>(rows, 1), 1);
  create(dataset, values.dtype(), values.shape(), std::max<std::int64_t>(65536 / row_bytes, 1));
  write(dataset, 0, values);
}

void Hdf5Writer::attribute(const std::string& path, const std::string& name, double value) {
  const LibraryLock lock;
  implementation_->write_attribute(path, name, H5T_NATIVE_DOUBLE, &value);
}

void Hdf5Writer::attribute(const std::string& path, const std::string& name, std::int64_t value) {
  const LibraryLock lock;
  implementation_->write_attribute(path, name, H5T_NATIVE_INT64, &value);
}

void Hdf5Writer::attribute(const std::string& path, const std::string& name, const std::string& value) {
  const LibraryLock lock;
  const Checker& check = implementation_->check;
  const Type type(check(H5Tcopy(H5T_C_S1), "write attribute " + name));
  check(H5Tset_size(type.get(), value.size() + 1), "write attribute " + name);
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "write attribute " + name);
  implementation_->write_attribute(path, name, type.get(), value.c_str());
}

void Hdf5Writer::close() {
  const LibraryLock lock;
  Implementation& self = *implementation_;
  // With the 1.10 format the library reports a full disk when a dataset is flushed, but not when the file is.
  for (const auto& [name, dataset] : self.datasets)
    self.check(H5Dflush(dataset.object.get()), "write " + name);
  const std::int64_t complete = 1;
  self.write_attribute("", "complete", H5T_NATIVE_INT64, &complete);
  self.check(H5Fflush(self.file.get(), H5F_SCOPE_GLOBAL), "flush it");
  self.datasets.clear();
  self.check(H5Fclose(self.file.release()), "close it");
  self.release_reserve();
  self.closed = true;
}

}  // namespace bireme
