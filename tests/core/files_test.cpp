#include "core/base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& text) const {
    return temporary_.write(name, text);
  }

  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path();
};

/// Runs `body` in a child and returns its exit status; 200 + s where signal s ended it.
int status_of_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 200 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(Files, ChecksumIsXxh3OfTheWholeStream) {
  // The published XXH3-128 (seed 0) of the empty input, from xxHash's own test suite (`xxhsum -H128
  // /dev/null`).
  EXPECT_EQ(checksum_bytes(""), "99aa06d3014798d86001c324468d497f");
  const std::string text(3'000'001, 'x');
  Checksum streamed;
  for (std::size_t at = 0; at < text.size(); at += 7777)
    streamed.update(
        std::as_bytes(std::span(text).subspan(at, std::min<std::size_t>(7777, text.size() - at))));
  EXPECT_EQ(streamed.text(), checksum_bytes(text));
  EXPECT_EQ(checksum_file(write("a", text)), checksum_bytes(text));
  std::string flipped = text;
  flipped[2'999'999] ^= 1;
  EXPECT_NE(checksum_bytes(flipped), checksum_bytes(text));
}

TEST_F(Files, ReadFileRefusesWhatIsTooLongMissingOrNoFile) {
  EXPECT_EQ(read_file(write("a", std::string("x\0y", 3)), 3), std::string("x\0y", 3));
  EXPECT_NE(error_of([&] { (void)read_file(folder_ / "a", 2); }).find("file has 3 bytes, at most 2 bytes"),
            std::string::npos);
  EXPECT_NE(error_of([&] { (void)read_file(folder_ / "none", 2); }).find("no such file"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)read_file(folder_, 2); }).find("not a regular file"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { (void)read_file(folder_ / "pipe", 2); }).find("not a regular file"),
            std::string::npos);
  try {
    (void)read_file(folder_ / "none", 2, ErrorKind::data);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::data);
  }
}

TEST_F(Files, ReadAtNamesTheByteWhereATornFileEnds) {
  const InputFile file(write("a", "0123456789"));
  std::array<std::byte, 4> bytes{};
  file.read_at(6, bytes);
  EXPECT_EQ(static_cast<char>(bytes[3]), '9');
  fs::resize_file(folder_ / "a", 8);  // another process cuts the file while it is open
  EXPECT_NE(error_of([&] { file.read_at(6, bytes); }).find("file ends at byte 8, 2 more"), std::string::npos);
}

TEST_F(Files, AtomicWriteReplacesTheWholeTextAndLeavesNothingBeside) {
  write_file_atomically(folder_ / "a", "first, longer text");
  write_file_atomically(folder_ / "a", "second");
  EXPECT_EQ(read_file(folder_ / "a", 100), "second");
  EXPECT_EQ(names_in(folder_), std::vector<std::string>{"a"});
}

TEST_F(Files, PlainFileNamesAreOneComponent) {
  for (const char* name : {"a", "model-00001-of-00002.safetensors", ".hidden", "..."})
    EXPECT_TRUE(is_plain_file_name(name));
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/a"),
        std::string("../a"), std::string("a\0b", 3), std::string(256, 'a')})
    EXPECT_FALSE(is_plain_file_name(name)) << name;
}

TEST_F(Files, OutputFileRecordsSizeAndChecksumOfWhatItWrote) {
  std::string text;  // pieces below, at and above the size of the buffer
  OutputFile file(folder_ / "a");
  for (const std::size_t size : {1U, 1000U, 1048576U, 1048575U, 3000000U, 5U}) {
    const std::string piece(size, static_cast<char>('a' + size % 26));
    file.write(piece);
    text += piece;
  }
  const FileRecord record = file.finish();
  EXPECT_EQ(record.bytes, static_cast<std::int64_t>(text.size()));
  EXPECT_EQ(record.checksum, checksum_bytes(text));
  EXPECT_EQ(read_file(folder_ / "a", 10'000'000), text);
}

TEST_F(Files, UnfinishedOutputIsRemoved) {
  { OutputFile(folder_ / "a").write("half"); }
  EXPECT_TRUE(names_in(folder_).empty());
}

TEST_F(Files, FullDiskIsAnErrorThatSaysSo) {
  OutputFile file("/dev/full");
  file.write("text");  // buffered: the disk is met at the end
  const std::string message = error_of([&] { file.finish(); });
  EXPECT_NE(message.find("disk is full"), std::string::npos) << message;
  EXPECT_NE(message.find("/dev/full"), std::string::npos) << message;
  EXPECT_TRUE(fs::exists("/dev/full"));
}

TEST_F(Files, FileSizeLimitIsAnErrorAndNotASignal) {
  const int status = status_of_child([&] {
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ignore_file_size_signal();
    const std::string message = error_of([&] {
      OutputFile file(folder_ / "a");
      file.write(std::string(2'000'000, 'x'));
      file.finish();
    });
    return message.find("file size limit") != std::string::npos ? 7 : 1;
  });
  EXPECT_EQ(status, 7);
  EXPECT_TRUE(names_in(folder_).empty());
}

TEST_F(Files, StagedFolderAppearsWholeAtCommit) {
  {
    StagedFolder staged(folder_ / "runs" / "step-1");
    write_file_atomically(staged.path() / "a", "text");
    fs::create_directory(staged.path() / "inner");
    EXPECT_FALSE(fs::exists(folder_ / "runs" / "step-1"));
    staged.commit();
  }
  EXPECT_EQ(read_file(folder_ / "runs" / "step-1" / "a", 10), "text");
  EXPECT_EQ(names_in(folder_ / "runs"), std::vector<std::string>{"step-1"});
}

TEST_F(Files, CommitReplacesAnOlderFolder) {
  for (const char* text : {"old", "new"}) {
    StagedFolder staged(folder_ / "export");
    write_file_atomically(staged.path() / text, text);
    staged.commit();
  }
  EXPECT_EQ(names_in(folder_ / "export"), std::vector<std::string>{"new"});
  EXPECT_EQ(names_in(folder_), std::vector<std::string>{"export"});
}

TEST_F(Files, UncommittedFolderIsRemoved) {
  { StagedFolder staged(folder_ / "step-1"); }
  EXPECT_TRUE(names_in(folder_).empty());
}

TEST_F(Files, SweepTakesTheFoldersOfDeadProcessesOnly) {
  StagedFolder living(folder_ / "step-1");
  ASSERT_EQ(status_of_child([&] {
              auto* lost = new StagedFolder(folder_ / "step-2");
              write_file_atomically(lost->path() / "half", "text");
              ::raise(SIGKILL);
              return 0;
            }),
            200 + SIGKILL);
  fs::create_directory(folder_ / "step-0");
  EXPECT_EQ(names_in(folder_).size(), 3U);
  EXPECT_EQ(StagedFolder::sweep(folder_), 1);
  EXPECT_TRUE(fs::exists(living.path()));
  EXPECT_TRUE(fs::exists(folder_ / "step-0"));
  EXPECT_EQ(names_in(folder_).size(), 2U);
  EXPECT_EQ(StagedFolder::sweep(folder_ / "none"), 0);
}

TEST_F(Files, SecondProcessIsRefusedAndToldWhoHoldsTheFolder) {
  {
    const FileLock lock(folder_);
    const std::string message = error_of([&] { const FileLock second(folder_); });
    EXPECT_NE(message.find("in use by process " + std::to_string(::getpid())), std::string::npos) << message;
  }
  const FileLock again(folder_);  // free once its holder is gone
}

TEST_F(Files, LockOfAKilledProcessIsFree) {
  ASSERT_EQ(status_of_child([&] {
              const FileLock lock(folder_);
              ::raise(SIGKILL);
              return 0;
            }),
            200 + SIGKILL);
  const FileLock lock(folder_);
}

TEST_F(Files, MissingSpaceIsForeseenWithBothNumbers) {
  EXPECT_GT(free_space(folder_ / "not" / "yet"), 0);
  require_free_space(folder_, 1, "a checkpoint");
  const std::string message =
      error_of([&] { require_free_space(folder_, std::int64_t{1} << 60, "a checkpoint"); });
  EXPECT_NE(message.find("a checkpoint needs 1.0 EiB, the disk has "), std::string::npos) << message;
}

TEST(ReadableBytes, UsesBinaryUnits) {
  EXPECT_EQ(readable_bytes(1023), "1023 bytes");
  EXPECT_EQ(readable_bytes(1536), "1.5 KiB");
  EXPECT_EQ(readable_bytes(std::int64_t{3} << 30), "3.0 GiB");
}

}  // namespace
}  // namespace bireme
