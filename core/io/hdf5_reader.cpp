#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/io/hdf5.h"
#include "core/io/hdf5_checks.h"
#include "core/io/hdf5_library.h"

namespace bireme {

using namespace hdf5;

namespace {

constexpr std::int64_t kMaxMembers = 1 << 20;
constexpr std::int64_t kMaxAttributeEntries = 1 << 16;
constexpr std::size_t kMaxAttributeBytes = 1 << 24;

}  // namespace

struct Hdf5Reader::Implementation {
  Checker check;
  std::int64_t file_bytes = 0;
  File file;
  std::map<std::string, CheckedDataset, std::less<>> datasets;  // opened and checked

  ~Implementation() {
    const LibraryLock lock;
    datasets.clear();
    file = {};
  }

  Object require(std::string_view path) {
    Object object = find(check, file.get(), path);
    if (!object) check.fail(fmt::format("holds no `{}`", path));
    return object;
  }

  const CheckedDataset& dataset(std::string_view path) {
    if (const auto found = datasets.find(path); found != datasets.end()) return found->second;
    return datasets.emplace(std::string(path), open_dataset(check, require(path), path, file_bytes))
        .first->second;
  }

  void read_rows(std::string_view path, const CheckedDataset& from, std::int64_t begin, std::int64_t end,
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

  void check_rows(std::string_view path, const CheckedDataset& from, std::int64_t begin,
                  std::int64_t end) const {
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
  return static_cast<bool>(find(implementation_->check, implementation_->file.get(), path));
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
  const CheckedDataset& from = implementation_->dataset(dataset);
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
  const CheckedDataset& from = implementation_->dataset(dataset);
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
  const CheckedDataset& from = implementation_->dataset(dataset);
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
