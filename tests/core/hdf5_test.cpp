#include "core/io/hdf5.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <numeric>

#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

/// Asked by the leak sanitizer: the library itself loses a little memory where it meets a damaged file.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the name that it asks for
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

class Hdf5 : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  std::shared_ptr<Memory> memory_ = make_host_memory();
  std::filesystem::path file_ = folder_.path() / "file.h5";

  template <class T>
  Tensor counting(const Shape& shape) {
    Tensor values(*memory_, shape, TypeOf<T>::value);
    std::iota(values.values<T>().begin(), values.values<T>().end(), T{1});
    return values;
  }

  /// A file with a list of bytes, long enough to have several chunks.
  void write_bytes_file() {
    Hdf5Writer writer(file_);
    std::vector<std::uint8_t> bytes(5000);
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    writer.create("bytes", DType::u8, {5000}, 512);
    writer.write_bytes("bytes", 0, bytes.data(), 5000);
    writer.close();
  }
};

TEST_F(Hdf5, ReadsBackEveryTypeAndShapeWholeAndInSlabs) {
  Hdf5Writer writer(file_);
  writer.write("a/f32", counting<float>({3, 2, 2}));
  writer.write("a/f64", counting<double>({7}));
  writer.write("a/i32", counting<std::int32_t>({4, 5}));
  writer.write("i64", counting<std::int64_t>({9}));
  writer.write("u8", counting<std::uint8_t>({200, 3}));
  writer.write("empty", counting<float>({0, 3}));
  writer.close();

  const Hdf5Reader reader(file_);
  EXPECT_EQ(reader.members(), (std::vector<std::string>{"a", "empty", "i64", "u8"}));
  EXPECT_EQ(reader.members("a"), (std::vector<std::string>{"f32", "f64", "i32"}));
  EXPECT_TRUE(reader.is_group("a"));
  EXPECT_TRUE(reader.has("a/f64"));
  EXPECT_FALSE(reader.has("a/f16"));
  EXPECT_FALSE(reader.has("b/f64"));
  EXPECT_EQ(reader.integer("", "complete"), 1);
  EXPECT_EQ(reader.dtype("u8"), DType::u8);

  const Tensor f32 = reader.read("a/f32", *memory_);
  EXPECT_EQ(f32.shape(), (Shape{3, 2, 2}));
  EXPECT_EQ(f32.data<float>()[11], 12.0f);
  EXPECT_EQ(reader.read("a/f64", *memory_).data<double>()[6], 7.0);
  EXPECT_EQ(reader.read("i64", *memory_).data<std::int64_t>()[8], 9);
  EXPECT_EQ(reader.read("empty", *memory_).shape(), (Shape{0, 3}));

  const Tensor slab = reader.read("a/i32", 1, 3, *memory_);
  EXPECT_EQ(slab.shape(), (Shape{2, 5}));
  EXPECT_EQ(slab.data<std::int32_t>()[0], 6);
  EXPECT_EQ(slab.data<std::int32_t>()[9], 15);
  EXPECT_EQ(reader.read("u8", 199, 200, *memory_).data<std::uint8_t>()[2], std::uint8_t(600 % 256));
}

TEST_F(Hdf5, WritesSlabsInAnyOrder) {
  Hdf5Writer writer(file_);
  writer.create("x", DType::f32, {10, 4}, 3);
  const Tensor all = counting<float>({10, 4});
  writer.write("x", 6, all.slice(6, 10));
  writer.write("x", 0, all.slice(0, 6));
  EXPECT_THROW(writer.write("x", 8, all.slice(0, 3)), Error);            // beyond the end
  EXPECT_THROW(writer.write("x", 0, counting<double>({10, 4})), Error);  // another type
  EXPECT_THROW(writer.write("x", 0, counting<float>({10, 3})), Error);   // another width
  writer.close();
  const Tensor read = Hdf5Reader(file_).read("x", *memory_);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(read.data<float>()[i], static_cast<float>(i + 1));
}

TEST_F(Hdf5, KeepsAttributes) {
  Hdf5Writer writer(file_);
  writer.write("x", counting<float>({2}));
  writer.attribute("", "ratio", 0.1);
  writer.attribute("x", "count", std::int64_t{1} << 60);
  writer.attribute("x", "name", std::string("Grüße"));
  writer.close();
  const Hdf5Reader reader(file_);
  EXPECT_EQ(reader.number("", "ratio"), 0.1);
  EXPECT_EQ(reader.integer("x", "count"), std::int64_t{1} << 60);
  EXPECT_EQ(reader.text("x", "name"), "Grüße");
  EXPECT_TRUE(reader.has_attribute("x", "name"));
  EXPECT_FALSE(reader.has_attribute("x", "nam"));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { reader.text("x", "count"); }), {"not a string"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { reader.number("", "other"); }), {"no attribute `other`"}));
}

TEST_F(Hdf5, ReadsFilesWrittenByH5py) {
  const test::Golden golden("vision/attention_mask.h5");
  EXPECT_EQ(golden.text("config", "note").substr(0, 15), "class-token row");  // a string of variable length
  EXPECT_EQ(golden.tensor("inputs/attention").dtype(), DType::f32);
  EXPECT_EQ(golden.number("config", "columns"), 8);
  EXPECT_EQ(golden.tensor("inputs/attention").shape(), (Shape{3, 48}));
  EXPECT_EQ(golden.tensor("outputs/mask_0.6").dtype(), DType::u8);
}

TEST_F(Hdf5, RefusesEveryFlippedBit) {
  write_bytes_file();
  const std::string good = folder_.read("file.h5");
  const Tensor expected = Hdf5Reader(file_).read("bytes", *memory_);
  int detected = 0;
  for (std::size_t position = 0; position < good.size(); position += 11) {
    std::string bad = good;
    bad[position] = static_cast<char>(bad[position] ^ (1 << (position % 8)));
    folder_.write("file.h5", bad);
    try {
      const Tensor read = Hdf5Reader(file_).read("bytes", *memory_);
      // A flip in bytes that mean nothing may pass, but never with other values.
      ASSERT_EQ(read.elements(), expected.elements()) << "at byte " << position;
      ASSERT_EQ(std::memcmp(read.raw(), expected.raw(), read.bytes()), 0) << "at byte " << position;
    } catch (const Error&) {
      ++detected;
    }
  }
  EXPECT_GT(detected, 5000 / 11);  // at the least, every flip in the data itself
}

TEST_F(Hdf5, RefusesATruncatedFileAtAnyLength) {
  write_bytes_file();
  const auto size = std::filesystem::file_size(file_);
  for (std::uintmax_t length = size; length-- > 0; length -= std::min(length, std::uintmax_t{97})) {
    std::filesystem::resize_file(file_, length);
    EXPECT_THROW(Hdf5Reader(file_).read("bytes", *memory_), Error) << length << " of " << size;
  }
}

TEST_F(Hdf5, HoldsNoTimesSoThatEqualContentsAreEqualFiles) {
  Hdf5Writer writer(file_);
  writer.write("x", counting<float>({2}));
  writer.close();
  const hid_t raw = H5Fopen(file_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  for (const char* name : {"/", "x"}) {
    H5O_info_t information{};
    ASSERT_GE(H5Oget_info_by_name2(raw, name, &information, H5O_INFO_TIME, H5P_DEFAULT), 0);
    EXPECT_EQ(information.mtime, 0) << name;
    EXPECT_EQ(information.ctime, 0) << name;
  }
  H5Fclose(raw);
}

TEST_F(Hdf5, AnUnfinishedFileIsRemoved) {
  {
    Hdf5Writer writer(file_);
    writer.write("x", counting<float>({2}));
  }
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(Hdf5, AFullDiskIsAnErrorAndLeavesNothing) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error_of(ErrorKind::checkpoint, [&] {
    Hdf5Writer writer(file_);
    for (const char* name : {"a", "b", "c", "d"}) writer.write(name, counting<float>({10000}));
    writer.close();
  });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(mentions(message, {"file.h5"}));
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(Hdf5, AReservationThatCannotBeMetFailsAtOnce) {
  EXPECT_TRUE(mentions(error_of(ErrorKind::checkpoint, [&] { Hdf5Writer(file_, std::int64_t{1} << 60); }),
                       {"no room"}));
  Hdf5Writer writer(file_, 1 << 20);
  writer.write("x", counting<float>({2}));
  writer.close();
  EXPECT_LT(std::filesystem::file_size(file_), 100000u);
  EXPECT_EQ(Hdf5Reader(file_).read("x", *memory_).elements(), 2);
}

/// Files that make the plain library read other files or exhaust memory. Each is made with the library
/// itself.
class HostileHdf5 : public Hdf5 {
 protected:
  HostileHdf5() {
    { const Hdf5Writer set_up(folder_.path() / "other.h5"); }
    secret_ = folder_.path() / "secret.h5";
    Hdf5Writer writer(secret_);
    writer.write("x/w", counting<float>({8}));
    writer.close();
    raw_ = H5Fcreate(file_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  }

  void close() { H5Fclose(raw_); }
  hid_t space(hsize_t size) { return H5Screate_simple(1, &size, nullptr); }
  void dataset(hid_t type, hid_t space, hid_t storage) {
    const hid_t made = H5Dcreate2(raw_, "x", type, space, H5P_DEFAULT, storage, H5P_DEFAULT);
    ASSERT_GE(made, 0);
    H5Dclose(made);
    H5Sclose(space);
    if (storage != H5P_DEFAULT) H5Pclose(storage);
  }
  void expect_refused(const std::string& path, const std::string& reason) {
    const std::string message = error_of(ErrorKind::data, [&] { Hdf5Reader(file_).read(path, *memory_); });
    EXPECT_TRUE(mentions(message, {reason}));
  }

  std::filesystem::path secret_;
  hid_t raw_;
};

TEST_F(HostileHdf5, ExternalLink) {
  H5Lcreate_external(secret_.c_str(), "/x/w", raw_, "w", H5P_DEFAULT, H5P_DEFAULT);
  close();
  expect_refused("w", "link");
}

TEST_F(HostileHdf5, ExternalLinkInTheMiddleOfAPath) {
  H5Lcreate_external(secret_.c_str(), "/x", raw_, "x", H5P_DEFAULT, H5P_DEFAULT);
  close();
  expect_refused("x/w", "link");  // H5Lget_info("x/w") itself says: a hard link
}

TEST_F(HostileHdf5, SoftLinkToAnExternalLink) {
  H5Lcreate_external(secret_.c_str(), "/x/w", raw_, "w", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/w", raw_, "soft", H5P_DEFAULT, H5P_DEFAULT);
  close();
  expect_refused("soft", "link");
}

TEST_F(HostileHdf5, ExternalStorage) {
  const hid_t storage = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(storage, secret_.c_str(), 0, 64);
  dataset(H5T_NATIVE_UINT8, space(64), storage);
  close();
  expect_refused("x", "another file");
}

TEST_F(HostileHdf5, VirtualDataset) {
  const hid_t storage = H5Pcreate(H5P_DATASET_CREATE), mapped = space(8);
  H5Pset_virtual(storage, mapped, secret_.c_str(), "/x/w", mapped);
  H5Sclose(mapped);
  dataset(H5T_NATIVE_FLOAT, space(8), storage);
  close();
  expect_refused("x", "virtual");
}

TEST_F(HostileHdf5, MoreDataThanIsStored) {
  const hid_t storage = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk = 1024;
  H5Pset_chunk(storage, 1, &chunk);
  dataset(H5T_NATIVE_FLOAT, space(hsize_t{1} << 40), storage);
  close();
  expect_refused("x", "declares 4398046511104 bytes but stores 0");
}

TEST_F(HostileHdf5, AnotherFilter) {
  const hid_t storage = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk = 8;
  H5Pset_chunk(storage, 1, &chunk);
  H5Pset_scaleoffset(storage, H5Z_SO_INT, 4);
  dataset(H5T_NATIVE_INT32, space(8), storage);
  close();
  expect_refused("x", "filter");
}

TEST_F(HostileHdf5, DataOfVariableLength) {
  const hid_t type = H5Tvlen_create(H5T_NATIVE_INT32);
  dataset(type, space(8), H5P_DEFAULT);
  H5Tclose(type);
  close();
  expect_refused("x", "neither a fixed-size integer nor a float");
}

}  // namespace
}  // namespace bireme
