#include "core/io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/io/safetensors_writer.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Safetensors : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) const {
    return temporary_.write(name, bytes);
  }

  /// "accept", or the problem that the reader names.
  std::string verdict(const std::string& bytes) const {
    try {
      (void)SafetensorsFile::open(write("case.safetensors", bytes));
      return "accept";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
      EXPECT_NE(error.where().find("case.safetensors"), std::string::npos);
      return error.problem();
    }
  }

  Tensor numbered(const Shape& shape, DType type) const {
    Tensor tensor(*memory_, shape, type);
    const Tensor numbers(*memory_, shape, DType::i64);
    for (std::int64_t i = 0; i < shape.elements(); ++i) numbers.data<std::int64_t>()[i] = i % 200;
    copy(numbers, tensor);
    return tensor;
  }

  std::shared_ptr<Memory> memory_ = make_host_memory();
  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path();
};

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return with_length(header.size(), header + data);
}

std::string entry(const std::string& type, const std::string& shape, const std::string& offsets,
                  const std::string& more = "") {
  return R"({"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + more + "}";
}

TEST_F(Safetensors, AcceptsWhatTheReferenceAccepts) {
  const std::string two = entry("U8", "[2]", "[0,2]");
  const std::string deep = std::string(120, '[') + std::string(120, ']');
  const std::map<std::string, std::string> cases = {
      {"normal", file_of(R"({"a":)" + two + "}", "xy")},
      {"spaces around the header", file_of(" \t\n{\"a\":" + two + "}   \n", "xy")},
      {"no tensors", file_of("{}")},
      {"unsorted keys", file_of(R"({"b":)" + entry("U8", "[1]", "[2,3]") + R"(,"a":)" + two + "}", "xyz")},
      {"scalar", file_of(R"({"a":)" + entry("F32", "[]", "[0,4]") + "}", "abcd")},
      {"a dimension of zero", file_of(R"({"a":)" + entry("F32", "[0,7]", "[0,0]") + "}")},
      {"an unknown field",
       file_of(R"({"a":)" + entry("U8", "[2]", "[0,2]", R"(,"x":[{"dtype":1.5},null,-3,"s",true])") + "}",
               "xy")},
      {"deep nesting", file_of(R"({"a":)" + entry("U8", "[2]", "[0,2]", R"(,"x":)" + deep) + "}", "xy")},
      {"metadata", file_of(R"({"__metadata__":{"format":"pt","":""},"a":)" + two + "}", "xy")},
      {"empty metadata", file_of(R"({"__metadata__":{},"a":)" + two + "}", "xy")},
      {"null metadata", file_of(R"({"__metadata__":null,"a":)" + two + "}", "xy")},
      {"a NaN", file_of(R"({"a":)" + entry("F32", "[1]", "[0,4]") + "}", std::string("\xff\xff\xff\xff"))},
      {"an empty name", file_of(R"({"":)" + two + "}", "xy")},
      {"a name like a path", file_of(R"({"../../x":)" + two + "}", "xy")},
      {"an escaped NUL in a name", file_of(R"({"a\u0000":)" + two + "}", "xy")},
      {"types that are not read",
       file_of(R"({"a":)" + entry("F8_E4M3", "[2]", "[0,2]") + R"(,"b":)" + entry("F4", "[2]", "[2,3]") + "}",
               "xyz")},
  };
  for (const auto& [name, bytes] : cases) EXPECT_EQ(verdict(bytes), "accept") << name;
}

TEST_F(Safetensors, RefusesWhatTheReferenceRefuses) {
  const std::string two = entry("U8", "[2]", "[0,2]");
  const std::string huge = "9223372036854775807";
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  struct Case {
    std::string name, bytes, problem;
  };
  const std::vector<Case> cases = {
      {"empty file", "", "it has 0 bytes"},
      {"seven bytes", "1234567", "it has 7 bytes"},
      {"header of length 0", with_length(0, "xy"), "not JSON"},
      {"header longer than the file", with_length(100, "{}"), "header claims 100 bytes"},
      {"header of 2^64 - 1 bytes", with_length(~std::uint64_t{0}, "{}"),
       "header claims 18446744073709551615 bytes"},
      {"header above the limit", with_length(100'000'001, "{}"), "header claims 100000001 bytes"},
      {"no UTF-8", file_of("{\"\xff\":" + two + "}", "xy"), "not JSON"},
      {"no JSON", file_of("hello"), "not JSON"},
      {"cut JSON", file_of(R"({"a":)"), "not JSON"},
      {"text behind the JSON", file_of("{} x"), "not JSON"},
      {"a comment", file_of("{} /* x */"), "not JSON"},
      {"half a surrogate", file_of(R"({"\ud800":)" + two + "}", "xy"), "not JSON"},
      {"trailing NULs", file_of(std::string("{}\0\0", 4)), "holds a NUL"},
      {"byte-order mark", file_of("\xEF\xBB\xBF{}"), "byte-order mark"},
      {"nesting beyond 128", file_of(R"({"a":)" + entry("U8", "[2]", "[0,2]", R"(,"x":)" + deep) + "}", "xy"),
       "nested too deeply"},
      {"a list", file_of("[]"), "not a JSON object"},
      {"a string", file_of(R"("a")"), "not a JSON object"},
      {"entry is null", file_of(R"({"a":null})"), "is not described by"},
      {"entry is a list", file_of(R"({"a":["U8",[1],[0,1]]})", "x"), "is not described by"},
      {"overlap", file_of(R"({"a":)" + two + R"(,"b":)" + entry("U8", "[2]", "[1,3]") + "}", "xyz"),
       "begins at 1, the one before it ends at 2"},
      {"hole", file_of(R"({"a":)" + two + R"(,"b":)" + entry("U8", "[2]", "[3,5]") + "}", "xyzab"),
       "begins at 3, the one before it ends at 2"},
      {"does not begin at 0", file_of(R"({"a":)" + entry("U8", "[2]", "[1,3]") + "}", "xyz"), "begins at 1"},
      {"begin behind end", file_of(R"({"a":)" + entry("U8", "[0]", "[1,0]") + "}", "x"),
       "does not fit its offsets"},
      {"data too short", file_of(R"({"a":)" + two + "}", "x"), "describes 2 bytes of data, the file holds 1"},
      {"data too long", file_of(R"({"a":)" + two + "}", "xyz"),
       "describes 2 bytes of data, the file holds 3"},
      {"data without tensors", file_of("{}", "x"), "describes 0 bytes"},
      {"shape does not fit", file_of(R"({"a":)" + entry("F32", "[2]", "[0,4]") + "}", "abcd"),
       "does not fit its offsets"},
      {"product overflows", file_of(R"({"a":)" + entry("U8", "[" + huge + ",3]", "[0,2]") + "}", "xy"),
       "does not fit its offsets"},
      {"product overflows to 0", file_of(R"({"a":)" + entry("U8", "[4294967296,4294967296]", "[0,0]") + "}"),
       "does not fit its offsets"},
      {"bytes overflow", file_of(R"({"a":)" + entry("F64", "[2305843009213693952]", "[0,0]") + "}"),
       "does not fit its offsets"},
      {"overflow before a zero",
       file_of(R"({"a":)" + entry("U8", "[" + huge + "," + huge + ",0]", "[0,0]") + "}"),
       "does not fit its offsets"},
      {"negative size", file_of(R"({"a":)" + entry("U8", "[-2]", "[0,2]") + "}", "xy"),
       "is not described by"},
      {"minus zero", file_of(R"({"a":)" + entry("U8", "[-0]", "[0,0]") + "}"), "is not described by"},
      {"size with a fraction", file_of(R"({"a":)" + entry("U8", "[2.0]", "[0,2]") + "}", "xy"),
       "is not described by"},
      {"size of 2^64", file_of(R"({"a":)" + entry("U8", "[18446744073709551616]", "[0,0]") + "}"),
       "is not described by"},
      {"size in a string", file_of(R"({"a":)" + entry("U8", R"(["2"])", "[0,2]") + "}", "xy"),
       "is not described by"},
      {"nested shape", file_of(R"({"a":)" + entry("U8", "[[2]]", "[0,2]") + "}", "xy"),
       "is not described by"},
      {"three offsets", file_of(R"({"a":)" + entry("U8", "[2]", "[0,2,2]") + "}", "xy"),
       "is not described by"},
      {"offsets missing", file_of(R"({"a":{"dtype":"U8","shape":[2]}})", "xy"), "is not described by"},
      {"shape missing", file_of(R"({"a":{"dtype":"U8","data_offsets":[0,2]}})", "xy"), "is not described by"},
      {"type missing", file_of(R"({"a":{"shape":[2],"data_offsets":[0,2]}})", "xy"), "is not described by"},
      {"half a byte", file_of(R"({"a":)" + entry("F4", "[3]", "[0,1]") + "}", "x"),
       "does not fit its offsets"},
      {"unknown type", file_of(R"({"a":)" + entry("F99", "[2]", "[0,2]") + "}", "xy"),
       R"(unknown type "F99")"},
      {"number as metadata", file_of(R"({"__metadata__":{"a":1}})"), "metadata holds something"},
      {"list as metadata", file_of(R"({"__metadata__":{"a":[]}})"), "metadata holds something"},
      {"object as metadata", file_of(R"({"__metadata__":{"a":{}}})"), "metadata holds something"},
      {"name twice", file_of(R"({"a":)" + two + R"(,"a":)" + two + "}", "xy"), R"("a" is there twice)"},
      {"type twice", file_of(R"({"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xy"),
       R"("dtype" of "a" is there twice)"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "is there twice"},
      {"metadata key twice", file_of(R"({"__metadata__":{"k":"1","k":"2"}})"),
       R"("k" of "__metadata__" is there twice)"},
      {"seven dimensions", file_of(R"({"a":)" + entry("U8", "[1,1,1,1,1,1,2]", "[0,2]") + "}", "xy"),
       "more than 6 dimensions"},
      {"a hundred dimensions",
       file_of(R"({"a":)" +
                   entry(
                       "U8",
                       "[1" +
                           [] {
                             std::string s;
                             for (int i = 0; i < 99; ++i) s += ",1";
                             return s;
                           }() +
                           "]",
                       "[0,1]") +
                   "}",
               "x"),
       "is not described by"},
      {"a name of 5000 bytes", file_of(R"({")" + std::string(5000, 'n') + R"(":)" + two + "}", "xy"),
       "name is too long"},
  };
  for (const Case& c : cases)
    EXPECT_NE(verdict(c.bytes).find(c.problem), std::string::npos) << c.name << ": " << verdict(c.bytes);
}

TEST_F(Safetensors, EveryFlippedOrCutHeaderIsReadOrRefused) {
  const std::string header = R"({"__metadata__":{"format":"pt"},"a":)" + entry("F32", "[2,3]", "[0,24]") +
                             R"(,"b":)" + entry("U8", "[3]", "[24,27]") + "}";
  const std::string good = file_of(header, std::string(27, 'd'));
  ASSERT_EQ(verdict(good), "accept");
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_NE(verdict(good.substr(0, length)), "accept") << length;
  int accepted = 0;
  for (std::size_t at = 0; at < good.size() - 27; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = good;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      accepted += verdict(flipped) == "accept" ? 1 : 0;  // or an Error: anything else ends the test
    }
  }
  EXPECT_GT(accepted,
            0);  // a flip inside a name or the metadata is another valid file; the checksum finds those
  EXPECT_LT(accepted, 300);
}

TEST_F(Safetensors, ReadsWhatTheReferenceWrote) {
  // safetensors.numpy.save of {"b.weight": f32 [[1.5, -2]], "a": f16 [1, 2, 3], "n": i64 7}, metadata format
  // = pt
  const char bytes[] =
      "\xd0\0\0\0\0\0\0\0"
      R"({"__metadata__":{"format":"pt"},"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"a":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}}      )"
      "\x07\0\0\0\0\0\0\0\0\0\xc0?\0\0\0\xc0\0<\0@\0B";
  const SafetensorsFile file =
      SafetensorsFile::open(write("a.safetensors", std::string(bytes, sizeof bytes - 1)));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b.weight", "n"}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.read("n", *memory_).values<std::int64_t>()[0], 7);
  const Tensor weight = file.read("b.weight", *memory_);
  EXPECT_EQ(weight.shape(), (Shape{1, 2}));
  EXPECT_EQ(weight.values<float>()[0], 1.5f);
  EXPECT_EQ(weight.values<float>()[1], -2.0f);
  const Tensor halves = file.read("a", *memory_);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(halves.values<float>()[i], static_cast<float>(i + 1));
}

TEST_F(Safetensors, HalfPrecisionWidensExactly) {
  const std::pair<std::uint16_t, float> cases[] = {
      // bit patterns of IEEE 754: smallest, subnormal, normal, largest …
      {0x0001, 0x1p-24f},  {0x03ff, 0x1.ff8p-15f}, {0x0400, 0x1p-14f},   {0x7bff, 65504.0f},
      {0xfc00, -INFINITY}, {0x8000, -0.0f},        {0x3555, 0x1.554p-2f}};
  std::string data;
  for (const auto& [half, value] : cases) data.append(reinterpret_cast<const char*>(&half), 2);
  data.append("\x01\x7e", 2);  // NaN
  const SafetensorsFile file = SafetensorsFile::open(
      write("a.safetensors", file_of(R"({"a":)" + entry("F16", "[8]", "[0,16]") + "}", data)));
  const Tensor widened = file.read("a", *memory_);
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(widened.values<float>()[i], cases[i].second);
    EXPECT_EQ(std::signbit(widened.values<float>()[i]), std::signbit(cases[i].second));
  }
  EXPECT_TRUE(std::isnan(widened.values<float>()[7]));
  EXPECT_EQ(file.read_rows("a", 3, 4, *memory_).values<float>()[0], 65504.0f);
}

TEST_F(Safetensors, WritesAndReadsEveryType) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const DType type : {DType::u8, DType::bf16, DType::f32, DType::i32, DType::f64, DType::i64})
    tensors.emplace_back(std::string("layer.\"") + to_string(type), numbered({3, 5}, type));
  tensors.emplace_back("empty", numbered({0, 4}, DType::f32));
  tensors.emplace_back("scalar", numbered({}, DType::f32));
  const FileRecord record = write_safetensors(folder_ / "a.safetensors", tensors);
  EXPECT_EQ(record.bytes, static_cast<std::int64_t>(fs::file_size(folder_ / "a.safetensors")));
  EXPECT_EQ(record.checksum, checksum_file(folder_ / "a.safetensors"));

  const SafetensorsFile file = SafetensorsFile::open(folder_ / "a.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : tensors) {
    const Tensor read = file.read(name, *memory_);
    ASSERT_EQ(read.shape(), tensor.shape()) << name;
    test::expect_identical(read, tensor, name);
    const auto size = static_cast<std::int64_t>(size_of(tensor.dtype()));
    EXPECT_EQ(file.entry(name).begin % size, 0) << name << " is not aligned";
  }
  const std::string text = read_file(folder_ / "a.safetensors", 1 << 20);
  std::uint64_t length = 0;
  std::memcpy(&length, text.data(), 8);
  EXPECT_EQ(length % 8, 0U);  // with the 8 bytes before it: data is aligned in the file too
}

TEST_F(Safetensors, RowsAndPartsAreSlicesOfTheWhole) {
  const Tensor whole = numbered({12, 8, 3}, DType::f32);
  write_safetensors(folder_ / "a.safetensors", {{"before", numbered({7}, DType::f32)}, {"w", whole}});
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "a.safetensors");
  test::expect_identical(file.read_rows("w", 5, 9, *memory_), whole.slice(5, 9));
  EXPECT_EQ(file.read_rows("w", 12, 12, *memory_).shape(), (Shape{0, 8, 3}));
  for (const int axis : {-1, 0, 1}) {
    for (int part = 0; part < 4; ++part) {
      const Partition partition{.axis = axis, .blocks = axis == 0 ? 3 : 1, .part = part, .parts = 4};
      const Tensor local(*memory_, local_shape(whole.shape(), partition), DType::f32);
      copy_part(whole, local, partition);
      test::expect_identical(file.read_part("w", partition, *memory_), local);
    }
  }
  EXPECT_THROW((void)file.read_rows("w", 5, 13, *memory_), Error);
  EXPECT_THROW((void)file.read_rows("w", -1, 3, *memory_), Error);
}

TEST_F(Safetensors, PartsOfALargeTensorAreReadInPieces) {
  const Tensor whole = numbered({3000, 2048}, DType::f32);  // 24 MB: more than one 16 MiB piece
  write_safetensors(folder_ / "a.safetensors", {{"w", whole}});
  const Partition partition{.axis = 1, .part = 1, .parts = 2};
  const Tensor local(*memory_, local_shape(whole.shape(), partition), DType::f32);
  copy_part(whole, local, partition);
  test::expect_identical(SafetensorsFile::open(folder_ / "a.safetensors").read_part("w", partition, *memory_),
                         local);
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
    return error.what();
  }
  return "no error";
}

TEST_F(Safetensors, MissingNamesAndUnreadTypesAreNamed) {
  const SafetensorsFile file = SafetensorsFile::open(
      write("a.safetensors", file_of(R"({"norm.weight":)" + entry("I8", "[2]", "[0,2]") + "}", "xy")));
  EXPECT_NE(error_of([&] {
              (void)file.read("norm.wieght", *memory_);
            }).find(R"(the nearest name is "norm.weight")"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              (void)file.read("norm.weight", *memory_);
            }).find(R"(type I8 are not read: "norm.weight")"),
            std::string::npos);
}

TEST_F(Safetensors, FileCutWhileOpenIsAnErrorAndNoSignal) {
  write_safetensors(folder_ / "a.safetensors", {{"w", numbered({1000, 100}, DType::f32)}});
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "a.safetensors");
  fs::resize_file(folder_ / "a.safetensors", 100'000);
  EXPECT_NE(error_of([&] { (void)file.read("w", *memory_); }).find("file ends at byte 100000"),
            std::string::npos);
}

class ShardedSafetensors : public Safetensors {
 protected:
  ShardedSafetensors() {
    write_safetensors(folder_ / "model-00001-of-00002.safetensors", {{"a", numbered({2, 2}, DType::f32)}});
    write_safetensors(folder_ / "model-00002-of-00002.safetensors", {{"b", numbered({3}, DType::bf16)}});
  }

  std::string open_with(const json& weight_map) const {
    write("model.safetensors.index.json",
          json_text(json{{"metadata", {{"total_size", 22}}}, {"weight_map", weight_map}}));
    return error_of([&] { (void)SafetensorsFolder::open(folder_); });
  }

  const std::string first_ = "model-00001-of-00002.safetensors", second_ = "model-00002-of-00002.safetensors";
};

TEST_F(ShardedSafetensors, ReadsTensorsFromTheirShards) {
  ASSERT_EQ(open_with({{"a", first_}, {"b", second_}}), "no error");
  const SafetensorsFolder folder = SafetensorsFolder::open(folder_);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(folder.files().size(), 2U);
  test::expect_identical(folder.read("a", *memory_), numbered({2, 2}, DType::f32));
  test::expect_identical(folder.read_rows("b", 1, 3, *memory_), numbered({3}, DType::bf16).slice(1, 3));
  EXPECT_NE(error_of([&] { (void)folder.read("c", *memory_); }).find(R"(no tensor "c")"), std::string::npos);
}

TEST_F(ShardedSafetensors, OneFileNeedsNoIndexAndGoesFirst) {
  write_safetensors(folder_ / "model.safetensors", {{"whole", numbered({2}, DType::f32)}});
  EXPECT_EQ(SafetensorsFolder::open(folder_).names(), std::vector<std::string>{"whole"});
}

TEST_F(ShardedSafetensors, EmptyFolderSaysWhatIsMissing) {
  EXPECT_NE(error_of([&] {
              (void)SafetensorsFolder::open(folder_ / "none");
            }).find("neither model.safetensors nor"),
            std::string::npos);
}

TEST_F(ShardedSafetensors, IndexMustAgreeWithItsShards) {
  EXPECT_NE(open_with({{"a", first_}, {"b", first_}}).find(R"(places tensor "b" here, but it is missing)"),
            std::string::npos);
  EXPECT_NE(open_with({{"a", 1}}).find("gives no file for tensor"), std::string::npos);
  EXPECT_NE(open_with({{"a", first_}, {"b", "none.safetensors"}}).find("no such file"), std::string::npos);
  EXPECT_NE(open_with(json::array()).find("not a JSON object with a weight_map"), std::string::npos);
  fs::copy(folder_ / first_, folder_ / "copy.safetensors");
  EXPECT_NE(open_with({{"a", "copy.safetensors"}, {"b", second_}, {"c", first_}}).find("\"c\""),
            std::string::npos);
  write_safetensors(folder_ / second_,
                    {{"b", numbered({3}, DType::bf16)}, {"a", numbered({2, 2}, DType::f32)}});
  EXPECT_NE(open_with({{"a", first_}, {"b", second_}}).find(R"(tensor "a" is in two shards)"),
            std::string::npos);
  write("model.safetensors.index.json", "{\"weight_map\":");
  EXPECT_NE(error_of([&] { (void)SafetensorsFolder::open(folder_); }).find("not a JSON object"),
            std::string::npos);
}

TEST_F(ShardedSafetensors, IndexCannotLeadOutOfTheFolder) {
  const fs::path outside = folder_.string() + "-outside.safetensors";
  fs::copy(folder_ / first_, outside);
  for (const std::string& name : {"../" + outside.filename().string(), outside.string(), std::string(".."),
                                  std::string(""), std::string("a\0b", 3)})
    EXPECT_NE(open_with({{"a", name}}).find("no plain file name"), std::string::npos) << name;
  fs::create_symlink(outside, folder_ / "link.safetensors");
  EXPECT_NE(open_with({{"a", "link.safetensors"}}).find("link leads out of its folder"), std::string::npos);
  fs::remove(outside);
}

TEST_F(ShardedSafetensors, LinksOfAHuggingFaceCacheAreFollowed) {
  const fs::path snapshot = folder_ / "models--x" / "snapshots" / "abc";
  fs::create_directories(snapshot);
  fs::create_directories(folder_ / "models--x" / "blobs");
  fs::copy(folder_ / first_, folder_ / "models--x" / "blobs" / "0123");
  fs::create_symlink("../../blobs/0123", snapshot / "model.safetensors");
  EXPECT_TRUE(SafetensorsFolder::open(snapshot).contains("a"));
}

TEST_F(Safetensors, FirstNonFiniteValueIsFound) {
  const Tensor values = numbered({5}, DType::f32);
  EXPECT_EQ(first_non_finite(values), std::nullopt);
  values.values<float>()[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(first_non_finite(values), 4);
  values.values<float>()[1] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(first_non_finite(values), 1);
  EXPECT_EQ(first_non_finite(convert(*memory_, values, DType::bf16)), 1);
  EXPECT_EQ(first_non_finite(convert(*memory_, values, DType::f64)), 1);
  EXPECT_EQ(first_non_finite(numbered({5}, DType::i64)), std::nullopt);
}

}  // namespace
}  // namespace bireme
