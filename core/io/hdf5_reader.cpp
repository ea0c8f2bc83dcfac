#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/io/hdf5.h"
#include "core/io/hdf5_library.h"

namespace bireme {

using namespace hdf5;

namespace {

// Deflate cannot expand more than 1032 : 1; what declares more than this was made to exhaust memory.
constexpr std::int64_t kMaxExpansion = 1100;
constexpr std::int64_t kMaxPathDepth = 32;
constexpr std::int64_t kMaxMembers = 1 << 20;
constexpr std::int64_t kMaxAttributeEntries = 1 << 16;
constexpr std::size_t kMaxAttributeBytes = 1 << 24;

std::vector<std::string> components(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    if (slash > 0) names.emplace_back(path.substr(0, slash));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return names;
}

std::int64_t checked_bytes(const Checker& check, std::string_view name, const Shape& shape,
                           std::int64_t element) {
  std::int64_t bytes = element;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) check.fail(fmt::format("{}: its size overflows", name));
  return bytes;
}

DType tensor_type(const Checker& check, std::string_view name, hid_t type) {
  const std::size_t size = H5Tget_size(type);
  const H5T_class_t type_class = H5Tget_class(type);
  if (type_class == H5T_FLOAT && size <= 8) return size == 8 ? DType::f64 : DType::f32;
  if (type_class == H5T_ENUM && size == 1) return DType::u8;  // h5py's booleans
  if (type_class == H5T_INTEGER && size <= 8) {
    const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
    if (size == 1 && !is_signed) return DType::u8;
    if (size < 4 || (size == 4 && is_signed)) return DType::i32;
    return DType::i64;
  }
  check.fail(fmt::format("{}: its type is neither a fixed-size integer nor a float", name));
}

}  // namespace

struct Hdf5Reader::Implementation {
  struct Dataset {
    Object object;
    Shape shape;
    DType type;
  };

  Checker check;
  std::int64_t file_bytes = 0;
  File file;
  std::map<std::string, Dataset, std::less<>> datasets;  // opened and checked

  ~Implementation() {
    const LibraryLock lock;
    datasets.clear();
    file = {};
  }

  /// The object at a path, reached through hard links alone; none when a component is missing.
  Object find(std::string_view path) {
    const std::vector<std::string> names = components(path);
    if (std::ssize(names) > kMaxPathDepth)
      check.fail(fmt::format("{}: more than {} levels deep", path, kMaxPathDepth));
    Object object(check(H5Oopen(file.get(), "/", H5P_DEFAULT), "open the root group"));
    for (const std::string& name : names) {
      if (H5Iget_type(object.get()) != H5I_GROUP) return {};
      if (name == "." || name == "..") check.fail(fmt::format("{}: not a path within the file", path));
      if (check(H5Lexists(object.get(), name.c_str(), H5P_DEFAULT), "look up " + std::string(path)) == 0)
        return {};
      H5L_info_t link;
      check(H5Lget_info(object.get(), name.c_str(), &link, H5P_DEFAULT), "look up " + std::string(path));
      if (link.type != H5L_TYPE_HARD)
        check.fail(fmt::format("{}: `{}` is a soft, external or user-defined link, which is not followed",
                               path, name));
      object = Object(check(H5Oopen(object.get(), name.c_str(), H5P_DEFAULT), "open " + std::string(path)));
    }
    return object;
  }

  Object require(std::string_view path) {
    Object object = find(path);
    if (!object) check.fail(fmt::format("holds no `{}`", path));
    return object;
  }

  const Dataset& dataset(std::string_view path) {
    if (const auto found = datasets.find(path); found != datasets.end()) return found->second;
    return datasets.emplace(std::string(path), open_checked(path)).first->second;
  }

  Dataset open_checked(std::string_view path) {
    Object object = require(path);
    if (H5Iget_type(object.get()) != H5I_DATASET) check.fail(fmt::format("{}: is not a dataset", path));
    const Space space(check(H5Dget_space(object.get()), "read the shape of " + std::string(path)));
    const Type type(check(H5Dget_type(object.get()), "read the type of " + std::string(path)));
    const Shape shape = checked_shape(path, space.get());
    const DType dtype = tensor_type(check, path, type.get());
    check_storage(path, object.get(), shape,
                  static_cast<std::int64_t>(std::max(H5Tget_size(type.get()), size_of(dtype))));
    return {std::move(object), shape, dtype};
  }

  Shape checked_shape(std::string_view path, hid_t space) const {
    const int rank = check(H5Sget_simple_extent_ndims(space), "read the shape of " + std::string(path));
    if (H5Sget_simple_extent_type(space) == H5S_NULL) check.fail(fmt::format("{}: has no shape", path));
    if (rank > Shape::kMaxRank)
      check.fail(fmt::format("{}: has {} dimensions, more than {}", path, rank, Shape::kMaxRank));
    hsize_t sizes[Shape::kMaxRank];
    check(H5Sget_simple_extent_dims(space, sizes, nullptr), "read the shape of " + std::string(path));
    Shape shape;
    for (int i = 0; i < rank; ++i) {
      if (sizes[i] > std::uint64_t{1} << 62)
        check.fail(fmt::format("{}: dimension {} is {}", path, i, sizes[i]));
      shape.push_back(static_cast<std::int64_t>(sizes[i]));
    }
    return shape;
  }

  /// Where the bytes are: in this file, in a plain layout, through known filters, and enough of them.
  void check_storage(std::string_view path, hid_t object, const Shape& shape, std::int64_t element) const {
    const Properties properties(
        check(H5Dget_create_plist(object), "read the storage of " + std::string(path)));
    if (check(H5Pget_external_count(properties.get()), "read the storage of " + std::string(path)) != 0)
      check.fail(fmt::format("{}: its data lies in another file, which is not followed", path));
    const H5D_layout_t layout = H5Pget_layout(properties.get());
    if (layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT)
      check.fail(fmt::format("{}: is a virtual dataset, which is not followed", path));
    check_filters(path, properties.get());

    const std::int64_t bytes = checked_bytes(check, path, shape, element);
    const std::int64_t stored = static_cast<std::int64_t>(
        std::min<std::uint64_t>(H5Dget_storage_size(object), static_cast<std::uint64_t>(file_bytes)));
    std::int64_t largest = bytes;
    if (layout == H5D_CHUNKED && bytes > 0) {
      hsize_t sizes[Shape::kMaxRank + 1];
      const int rank = check(H5Pget_chunk(properties.get(), Shape::kMaxRank + 1, sizes), "read its chunks");
      largest = std::max(
          bytes, checked_bytes(check, path, Shape(sizes, sizes + std::min(rank, Shape::kMaxRank)), element));
    }
    if (largest / kMaxExpansion > stored || (bytes > 0 && stored == 0))
      check.fail(fmt::format("{}: declares {} bytes but stores {}", path, largest, stored));
  }

  void check_filters(std::string_view path, hid_t properties) const {
    const int filters = check(H5Pget_nfilters(properties), "read the filters of " + std::string(path));
    for (int i = 0; i < filters; ++i) {
      unsigned flags = 0, configuration = 0;
      std::size_t values = 0;
      const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values,
                                                 nullptr, 0, nullptr, &configuration);
      if (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_FLETCHER32)
        check.fail(
            fmt::format("{}: uses filter {}, not one of shuffle, deflate, fletcher32", path, int{filter}));
    }
  }

  void read_rows(std::string_view path, const Dataset& from, std::int64_t begin, std::int64_t end,
                 void* into) const {
    const int rank = from.shape.rank();
    hsize_t start[Shape::kMaxRank] = {}, count[Shape::kMaxRank];
    for (int i = 0; i < rank; ++i) count[i] = static_cast<hsize_t>(from.shape[i]);
    start[0] = static_cast<hsize_t>(begin);
    count[0] = static_cast<hsize_t>(end - begin);
    const Space file_space(check(H5Dget_space(from.object.get()), "read " + std::string(path)));
    const Space memory_space(check(H5Screate_simple(rank, count, nullptr), "read " + std::string(path)));
    check(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start, nullptr, count, nullptr),
          "read " + std::string(path));
    check(H5Dread(from.object.get(), memory_type(from.type), memory_space.get(), file_space.get(),
                  H5P_DEFAULT, into),
          fmt::format("read entries {} to {} of {}", begin, end, path));
  }

  void check_rows(std::string_view path, const Dataset& from, std::int64_t begin, std::int64_t end) const {
    const std::int64_t rows = from.shape.rank() == 0 ? 0 : from.shape.front();
    if (begin < 0 || begin > end || end > rows)
      check.fail(fmt::format("{}: entries {} to {} lie outside its {}", path, begin, end, rows));
  }

  struct OpenAttribute {
    Object object;
    Attribute attribute;
    Type type;
    std::int64_t entries;
  };
  OpenAttribute open_attribute(std::string_view path, const std::string& name) {
    const std::string what = fmt::format("read attribute `{}` of `{}`", name, path);
    Object object = require(path);
    if (check(H5Aexists(object.get(), name.c_str()), what) == 0)
      check.fail(fmt::format("`{}` has no attribute `{}`", path, name));
    Attribute attribute(check(H5Aopen(object.get(), name.c_str(), H5P_DEFAULT), what));
    Type type(check(H5Aget_type(attribute.get()), what));
    const Space space(check(H5Aget_space(attribute.get()), what));
    const std::int64_t entries = check(H5Sget_simple_extent_npoints(space.get()), what);
    if (entries > kMaxAttributeEntries ||
        H5Tget_size(type.get()) >
            kMaxAttributeBytes / static_cast<std::size_t>(std::max<std::int64_t>(entries, 1)))
      check.fail(fmt::format("attribute `{}` of `{}` is too large", name, path));
    return {std::move(object), std::move(attribute), std::move(type), entries};
  }

  template <class T>
  std::vector<T> read_numbers(std::string_view path, const std::string& name, hid_t into) {
    const OpenAttribute from = open_attribute(path, name);
    tensor_type(check, name, from.type.get());
    std::vector<T> values(static_cast<std::size_t>(from.entries));
    if (!values.empty()) check(H5Aread(from.attribute.get(), into, values.data()), "read attribute " + name);
    return values;
  }

  std::vector<std::string> read_texts(std::string_view path, const std::string& name) {
    const OpenAttribute from = open_attribute(path, name);
    if (H5Tget_class(from.type.get()) != H5T_STRING)
      check.fail(fmt::format("attribute `{}` of `{}` is not a string", name, path));
    return H5Tis_variable_str(from.type.get()) > 0 ? read_variable_texts(from, name)
                                                   : read_fixed_texts(from, name);
  }

  std::vector<std::string> read_variable_texts(const OpenAttribute& from, const std::string& name) const {
    std::vector<std::string> texts;
    if (from.entries == 0) return texts;
    const Type type(check(H5Tcopy(H5T_C_S1), "read attribute " + name));
    check(H5Tset_size(type.get(), H5T_VARIABLE), "read attribute " + name);
    check(H5Tset_cset(type.get(), H5Tget_cset(from.type.get())), "read attribute " + name);
    std::vector<char*> pointers(static_cast<std::size_t>(from.entries), nullptr);
    const herr_t status = H5Aread(from.attribute.get(), type.get(), static_cast<void*>(pointers.data()));
    for (char* text : pointers) {
      texts.emplace_back(text == nullptr ? "" : text);
      H5free_memory(text);
    }
    check(status, "read attribute " + name);
    return texts;
  }

  std::vector<std::string> read_fixed_texts(const OpenAttribute& from, const std::string& name) const {
    const std::size_t size = H5Tget_size(from.type.get());
    std::string bytes(size * static_cast<std::size_t>(from.entries), '\0');
    if (!bytes.empty())
      check(H5Aread(from.attribute.get(), from.type.get(), bytes.data()), "read attribute " + name);
    std::vector<std::string> texts;
    for (std::size_t begin = 0; begin < bytes.size(); begin += size)
      texts.emplace_back(bytes.data() + begin, strnlen(bytes.data() + begin, size));
    return texts;
  }

  template <class T>
  T single(const std::vector<T>& values, std::string_view path, const std::string& name) const {
    if (values.size() != 1)
      check.fail(fmt::format("attribute `{}` of `{}` has {} entries, not one", name, path, values.size()));
    return values.front();
  }
};

Hdf5Reader::Hdf5Reader(const std::filesystem::path& file)
    : implementation_(std::make_unique<Implementation>()) {
  Implementation& self = *implementation_;
  self.check = {ErrorKind::data, file.string(),
                "the file is missing or damaged: copy it again, or make it anew"};
  std::error_code failure;
  self.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(file, failure));
  if (failure) self.check.fail(fmt::format("cannot open it ({})", failure.message()));
  const LibraryLock lock;
  const Properties access(self.check(H5Pcreate(H5P_FILE_ACCESS), "prepare to open it"));
  // Readers take no lock on the file: read-only and network file systems often cannot give one.
  self.check(H5Pset_file_locking(access.get(), false, true), "prepare to open it");
  self.file = File(self.check(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()), "open it"));
}

Hdf5Reader::Hdf5Reader(Hdf5Reader&&) noexcept = default;
Hdf5Reader& Hdf5Reader::operator=(Hdf5Reader&&) noexcept = default;
Hdf5Reader::~Hdf5Reader() = default;

bool Hdf5Reader::has(std::string_view path) const {
  const LibraryLock lock;
  return static_cast<bool>(implementation_->find(path));
}

bool Hdf5Reader::is_group(std::string_view path) const {
  const LibraryLock lock;
  return H5Iget_type(implementation_->require(path).get()) == H5I_GROUP;
}

std::vector<std::string> Hdf5Reader::members(std::string_view group) const {
  const LibraryLock lock;
  const Checker& check = implementation_->check;
  const Object object = implementation_->require(group);
  H5G_info_t information;
  if (H5Iget_type(object.get()) != H5I_GROUP) check.fail(fmt::format("`{}` is not a group", group));
  check(H5Gget_info(object.get(), &information), "list " + std::string(group));
  if (information.nlinks > static_cast<hsize_t>(kMaxMembers))
    check.fail(fmt::format("`{}` has more than {} members", group, kMaxMembers));
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  hsize_t index = 0;
  check(H5Literate(object.get(), H5_INDEX_NAME, H5_ITER_INC, &index, collect, &names),
        "list " + std::string(group));
  return names;
}

Shape Hdf5Reader::shape(std::string_view dataset) const {
  const LibraryLock lock;
  return implementation_->dataset(dataset).shape;
}

DType Hdf5Reader::dtype(std::string_view dataset) const {
  const LibraryLock lock;
  return implementation_->dataset(dataset).type;
}

Tensor Hdf5Reader::read(std::string_view dataset, Memory& memory) const {
  const LibraryLock lock;
  const Implementation::Dataset& from = implementation_->dataset(dataset);
  Tensor values(memory, from.shape, from.type);
  if (values.elements() == 0) return values;
  implementation_->check(
      H5Dread(from.object.get(), memory_type(from.type), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.raw()),
      "read " + std::string(dataset));
  return values;
}

Tensor Hdf5Reader::read(std::string_view dataset, std::int64_t begin, std::int64_t end,
                        Memory& memory) const {
  const LibraryLock lock;
  const Implementation::Dataset& from = implementation_->dataset(dataset);
  implementation_->check_rows(dataset, from, begin, end);
  Shape shape = from.shape;
  shape[0] = end - begin;
  Tensor values(memory, shape, from.type);
  if (values.elements() > 0) implementation_->read_rows(dataset, from, begin, end, values.raw());
  return values;
}

void Hdf5Reader::read_bytes(std::string_view dataset, std::int64_t begin, std::int64_t end,
                            std::uint8_t* into) const {
  const LibraryLock lock;
  const Implementation::Dataset& from = implementation_->dataset(dataset);
  if (from.type != DType::u8 || from.shape.rank() != 1)
    implementation_->check.fail(fmt::format("{}: is not a list of bytes", dataset));
  implementation_->check_rows(dataset, from, begin, end);
  if (end > begin) implementation_->read_rows(dataset, from, begin, end, into);
}

bool Hdf5Reader::has_attribute(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->check(H5Aexists(implementation_->require(path).get(), name.c_str()),
                                "look up " + name) > 0;
}

double Hdf5Reader::number(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->single(implementation_->read_numbers<double>(path, name, H5T_NATIVE_DOUBLE), path,
                                 name);
}

std::int64_t Hdf5Reader::integer(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->single(implementation_->read_numbers<std::int64_t>(path, name, H5T_NATIVE_INT64),
                                 path, name);
}

std::string Hdf5Reader::text(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->single(implementation_->read_texts(path, name), path, name);
}

std::vector<double> Hdf5Reader::numbers(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->read_numbers<double>(path, name, H5T_NATIVE_DOUBLE);
}

std::vector<std::string> Hdf5Reader::texts(std::string_view path, const std::string& name) const {
  const LibraryLock lock;
  return implementation_->read_texts(path, name);
}

}  // namespace bireme
