#include "core/io/hdf5_checks.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace bireme::hdf5 {

namespace {

// Deflate cannot expand more than 1032 : 1; what declares more than this was made to exhaust memory.
constexpr std::int64_t kMaxCompression = 1100;
constexpr std::int64_t kMaxPathDepth = 32;

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

Shape checked_shape(const Checker& check, std::string_view path, hid_t space) {
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

void check_filters(const Checker& check, std::string_view path, hid_t properties) {
  const int filters = check(H5Pget_nfilters(properties), "read the filters of " + std::string(path));
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0, configuration = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values, nullptr,
                                               0, nullptr, &configuration);
    if (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_FLETCHER32)
      check.fail(
          fmt::format("{}: uses filter {}, not one of shuffle, deflate, fletcher32", path, int{filter}));
  }
}

/// Where the bytes are: in this file, in a plain layout, through known filters, and enough of them.
void check_storage(const Checker& check, std::string_view path, hid_t object, const Shape& shape,
                   std::int64_t element, std::int64_t file_bytes) {
  const Properties properties(check(H5Dget_create_plist(object), "read the storage of " + std::string(path)));
  if (check(H5Pget_external_count(properties.get()), "read the storage of " + std::string(path)) != 0)
    check.fail(fmt::format("{}: its data lies in another file, which is not followed", path));
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  if (layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT)
    check.fail(fmt::format("{}: is a virtual dataset, which is not followed", path));
  check_filters(check, path, properties.get());

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
  if (largest / kMaxCompression > stored || (bytes > 0 && stored == 0))
    check.fail(fmt::format("{}: declares {} bytes but stores {}", path, largest, stored));
}

}  // namespace

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

/// The object at a path, reached through hard links alone; none when a component is missing.
Object find(const Checker& check, hid_t file, std::string_view path) {
  const std::vector<std::string> names = components(path);
  if (std::ssize(names) > kMaxPathDepth)
    check.fail(fmt::format("{}: more than {} levels deep", path, kMaxPathDepth));
  Object object(check(H5Oopen(file, "/", H5P_DEFAULT), "open the root group"));
  for (const std::string& name : names) {
    if (H5Iget_type(object.get()) != H5I_GROUP) return {};
    if (name == "." || name == "..") check.fail(fmt::format("{}: not a path within the file", path));
    if (check(H5Lexists(object.get(), name.c_str(), H5P_DEFAULT), "look up " + std::string(path)) == 0)
      return {};
    H5L_info_t link;
    check(H5Lget_info(object.get(), name.c_str(), &link, H5P_DEFAULT), "look up " + std::string(path));
    if (link.type != H5L_TYPE_HARD)
      check.fail(fmt::format("{}: `{}` is a soft, external or user-defined link, which is not followed", path,
                             name));
    object = Object(check(H5Oopen(object.get(), name.c_str(), H5P_DEFAULT), "open " + std::string(path)));
  }
  return object;
}

CheckedDataset open_dataset(const Checker& check, Object object, std::string_view path,
                            std::int64_t file_bytes) {
  if (H5Iget_type(object.get()) != H5I_DATASET) check.fail(fmt::format("{}: is not a dataset", path));
  const Space space(check(H5Dget_space(object.get()), "read the shape of " + std::string(path)));
  const Type type(check(H5Dget_type(object.get()), "read the type of " + std::string(path)));
  const Shape shape = checked_shape(check, path, space.get());
  const DType dtype = tensor_type(check, path, type.get());
  const std::size_t element = std::max(H5Tget_size(type.get()), size_of(dtype));
  check_storage(check, path, object.get(), shape, static_cast<std::int64_t>(element), file_bytes);
  return {std::move(object), shape, dtype};
}

}  // namespace bireme::hdf5
