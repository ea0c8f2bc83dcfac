#include "core/io/archive.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdio>

#include "tests/support/expect_error.h"
#include "tests/support/tar.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;
using test::tar_end;
using test::tar_member;

class Archive : public testing::Test {
 protected:
  std::string text(const TarArchive& archive, std::size_t member) const {
    const auto bytes = archive.read(archive.members().at(member));
    return {bytes.begin(), bytes.end()};
  }
  test::TemporaryFolder folder_;
};

TEST_F(Archive, ListsAndReadsRegularFilesInOrderOfName) {
  const auto path =
      folder_.write("a.tar", tar_member("d/", "", '5') + tar_member("d/two.txt", std::string(700, 'x')) +
                                 tar_member("d/one.txt", "1") + tar_member("empty", "") + tar_end());
  const TarArchive archive(path);
  ASSERT_EQ(archive.members().size(), 3u);
  EXPECT_EQ(archive.members()[0].name, "d/one.txt");
  EXPECT_EQ(text(archive, 0), "1");
  EXPECT_EQ(text(archive, 1), std::string(700, 'x'));
  EXPECT_EQ(text(archive, 2), "");
}

TEST_F(Archive, UnderstandsLongNamesOfGnuAndPax) {
  const std::string long_name = "folder/" + std::string(150, 'n') + ".png",
                    pax_name = "päx/" + std::string(99, 'p');
  std::string record = " path=" + pax_name + "\n";
  record = std::to_string(record.size() + 3) + record;
  const auto path =
      folder_.write("a.tar", tar_member("././@LongLink", long_name + '\0', 'L') + tar_member("cut", "gnu") +
                                 tar_member("header", record, 'x') + tar_member("cut", "pax") +
                                 tar_member("plain", "") + tar_end());
  const TarArchive archive(path);
  ASSERT_EQ(archive.members().size(), 3u);
  EXPECT_EQ(archive.members()[0].name, long_name);
  EXPECT_EQ(archive.members()[1].name, "plain");
  EXPECT_EQ(archive.members()[2].name, pax_name);
  EXPECT_EQ(text(archive, 2), "pax");
}

TEST_F(Archive, ALaterMemberOfTheSameNameCounts) {
  const auto path = folder_.write("a.tar", tar_member("a", "old") + tar_member("a", "new") + tar_end());
  const TarArchive archive(path);
  ASSERT_EQ(archive.members().size(), 1u);
  EXPECT_EQ(text(archive, 0), "new");
}

TEST_F(Archive, LinksAndDevicesArePassedOver) {
  const auto path = folder_.write(
      "a.tar", tar_member("link", "", '2', "/etc/passwd") + tar_member("hard", "", '1', "../secret") +
                   tar_member("dev", "", '3') + tar_member("file", "x") + tar_end());
  const TarArchive archive(path);
  ASSERT_EQ(archive.members().size(), 1u);
  EXPECT_EQ(archive.members()[0].name, "file");
}

TEST_F(Archive, DamageIsRefusedWithThePlace) {
  const std::string good = tar_member("a", std::string(2000, 'x')) + tar_end();
  std::string flipped = good;
  flipped[10] ^= 1;
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { TarArchive(folder_.write("f.tar", flipped)); }),
                       {"checksum", "f.tar", "byte 0"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { TarArchive(folder_.write("s.tar", good.substr(0, 1000))); }),
               {"member of 2000 bytes", "s.tar"}));
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data, [&] { TarArchive(folder_.write("e.tar", good.substr(0, 512 + 2048))); }),
      {"end mark"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { TarArchive(folder_.write("z.tar", "\x1f\x8b" + good)); }),
               {"uncompressed .tar"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { TarArchive(folder_.path() / "none.tar"); }), {"none.tar"}));
}

std::string idx(std::initializer_list<int> sizes, const std::string& entries, char type = 8) {
  std::string bytes{0, 0, type, static_cast<char>(sizes.size())};
  for (const int size : sizes)
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<char>(size >> shift));
  return bytes + entries;
}

std::string gzip(const std::string& bytes, const std::filesystem::path& scratch) {
  const gzFile file = gzopen(scratch.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
  std::ifstream in(scratch, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_F(Archive, ReadsIdxPlainAndGzip) {
  const std::string bytes = idx({2, 1, 3}, "abcdef");
  for (const std::string& stored : {bytes, gzip(bytes, folder_.path() / "scratch")}) {
    const auto path = folder_.write("x", stored);
    EXPECT_TRUE(is_idx(path));
    const IdxArray array = read_idx(path);
    EXPECT_EQ(array.shape, (Shape{2, 1, 3}));
    EXPECT_EQ(std::string(array.bytes.begin(), array.bytes.end()), "abcdef");
  }
  EXPECT_FALSE(is_idx(folder_.write("y", "plain text")));
}

TEST_F(Archive, AnIdxHeaderThatLiesIsRefused) {
  const auto error = [&](const std::string& bytes) {
    return error_of(ErrorKind::data, [&] { read_idx(folder_.write("lie", bytes)); });
  };
  EXPECT_TRUE(mentions(error(idx({4, 2}, "abcdef")), {"declares 8 entries but holds 6", "lie"}));
  EXPECT_TRUE(mentions(error(idx({1, 2}, "abcdef")), {"declares 2 entries but holds more"}));
  // No memory is taken for what cannot be there, not even where the product overflows.
  EXPECT_TRUE(
      mentions(error(idx({0x7fffffff, 0x7fffffff, 0x7fffffff, 4}, "abcdef")), {"more than its length"}));
  EXPECT_TRUE(mentions(error(idx({2}, "ab", 0x0d)), {"0x0d", "unsigned bytes"}));
  EXPECT_TRUE(mentions(error(std::string(2, '\0')), {"not an IDX"}));
  EXPECT_TRUE(mentions(error(idx({2, 2}, "").substr(0, 9)), {"ends inside its header"}));
}

TEST_F(Archive, ATornOrDamagedGzipIsRefused) {
  std::string noise;
  for (unsigned i = 0, x = 1; i < 5000; ++i)
    noise.push_back(static_cast<char>((x = x * 1664525 + 1013904223) >> 24));
  const std::string good = gzip(idx({5000}, noise), folder_.path() / "scratch");
  EXPECT_EQ(read_idx(folder_.write("good", good)).bytes.size(), 5000u);
  std::string flipped = good;
  flipped[good.size() / 2] ^= 4;
  EXPECT_THROW(read_idx(folder_.write("flipped", flipped)), Error);
  EXPECT_THROW(read_idx(folder_.write("torn", good.substr(0, good.size() - 100))), Error);
  EXPECT_THROW(read_idx(folder_.write("no_checksum", good.substr(0, good.size() - 4))), Error);
}

}  // namespace
}  // namespace bireme
