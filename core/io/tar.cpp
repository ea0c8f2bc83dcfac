#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <string_view>

#include "core/io/archive.h"

namespace bireme {

namespace {

constexpr std::int64_t kTarBlock = 512;
constexpr std::int64_t kMaxNameRecord =
    1 << 20;  // a pax header or long name; real ones have a few hundred bytes

using Block = std::array<char, kTarBlock>;

/// Fields of a header: offsets and sizes by POSIX.1-2017, pax, "ustar Interchange Format".
std::string_view field(const Block& block, std::size_t offset, std::size_t size) {
  const std::string_view text(block.data() + offset, size);
  return text.substr(0, text.find('\0'));
}

class TarWalker {
 public:
  TarWalker(const InputFile& file, std::map<std::string, ArchiveMember>& members)
      : file_(file), members_(members) {}

  void walk() {
    std::int64_t offset = 0;
    while (offset < file_.size()) {
      const Block block = read_block(offset);
      if (std::all_of(block.begin(), block.end(), [](char c) { return c == 0; })) return;  // the end mark
      check_sum(block, offset);
      const std::int64_t bytes = next_size_ >= 0 ? next_size_ : number(block, 124, 12, offset);
      const std::int64_t data = offset + kTarBlock;
      if (bytes > file_.size() - data)
        fail(fmt::format("it ends {} bytes into a member of {} bytes", file_.size() - data, bytes), offset);
      take(block, data, bytes, offset);
      offset = data + (bytes + kTarBlock - 1) / kTarBlock * kTarBlock;
    }
    fail("it ends without an end mark, so members may be missing", offset);
  }

 private:
  [[noreturn]] void fail(const std::string& what, std::int64_t offset) const {
    throw Error(ErrorKind::data, fmt::format("not a whole tar archive: {} (at byte {})", what, offset),
                file_.path().string(), "give an uncompressed .tar, and copy it again if it is damaged");
  }

  Block read_block(std::int64_t offset) const {
    Block block;
    if (file_.size() - offset < kTarBlock) fail("it ends inside a header", offset);
    file_.read_at(offset, std::as_writable_bytes(std::span(block)));
    return block;
  }

  /// The header's own checksum: the sum of its bytes with the checksum field taken as spaces.
  void check_sum(const Block& block, std::int64_t offset) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < block.size(); ++i)
      sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
    if (sum != number(block, 148, 8, offset)) fail("a header has the wrong checksum", offset);
  }

  /// Octal digits, or base 256 when the first bit is set (GNU, for sizes of 8 GiB and more).
  std::int64_t number(const Block& block, std::size_t offset, std::size_t size, std::int64_t at) const {
    std::uint64_t value = 0;
    if ((static_cast<unsigned char>(block[offset]) & 0x80) != 0) {
      for (std::size_t i = 1; i < size; ++i) {
        if (value >> 55 != 0) fail("a number in a header is too large", at);
        value = value << 8 | static_cast<unsigned char>(block[offset + i]);
      }
      return static_cast<std::int64_t>(value);
    }
    for (std::size_t i = 0; i < size; ++i) {
      const char c = block[offset + i];
      if (c == '\0' || c == ' ') continue;
      if (c < '0' || c > '7') fail("a number in a header is not octal", at);
      value = value << 3 | static_cast<std::uint64_t>(c - '0');
    }
    return static_cast<std::int64_t>(value);
  }

  /// Long names arrive as members of their own, before the member that they name.
  void take(const Block& block, std::int64_t data, std::int64_t bytes, std::int64_t offset) {
    const char type = block[156];
    if (type == 'L') return void(next_name_ = text(data, bytes, offset));
    if (type == 'x') return take_pax(text(data, bytes, offset), offset);
    if (type == 'g' || type == 'K') return;
    if (type == '0' || type == '\0' || type == '7') {
      std::string name = next_name_.empty() ? header_name(block) : next_name_;
      if (!name.ends_with('/')) members_[name] = {.name = name, .offset = data, .bytes = bytes};
    }
    next_name_.clear();
    next_size_ = -1;
  }

  static std::string header_name(const Block& block) {
    const std::string name(field(block, 0, 100));
    const std::string_view prefix =
        field(block, 257, 5) == "ustar" && block[262] == '\0' ? field(block, 345, 155) : "";
    return prefix.empty() ? name : std::string(prefix) + "/" + name;
  }

  std::string text(std::int64_t data, std::int64_t bytes, std::int64_t offset) const {
    if (bytes > kMaxNameRecord) fail("a long name is longer than 1 MiB", offset);
    std::string text(static_cast<std::size_t>(bytes), '\0');
    file_.read_at(data, std::as_writable_bytes(std::span(text)));
    return text.substr(0, text.find('\0'));
  }

  /// Records of the form "LENGTH KEY=VALUE\n", LENGTH counting all of the record.
  void take_pax(std::string_view records, std::int64_t offset) {
    while (!records.empty()) {
      std::size_t length = 0;
      const auto parsed = std::from_chars(records.data(), records.data() + records.size(), length);
      const std::size_t digits = static_cast<std::size_t>(parsed.ptr - records.data());
      if (parsed.ec != std::errc() || length < digits + 3 || length > records.size())
        fail("a pax header does not parse", offset);
      const std::string_view record = records.substr(digits + 1, length - digits - 2);
      if (record.starts_with("path=")) next_name_ = record.substr(5);
      if (record.starts_with("size=")) {
        const std::string_view digits_of_size = record.substr(5);
        const auto size = std::from_chars(digits_of_size.begin(), digits_of_size.end(), next_size_);
        if (size.ec != std::errc() || next_size_ < 0) fail("a pax header gives no valid size", offset);
      }
      records.remove_prefix(length);
    }
  }

  const InputFile& file_;
  std::map<std::string, ArchiveMember>& members_;
  std::string next_name_;
  std::int64_t next_size_ = -1;
};

}  // namespace

TarArchive::TarArchive(const std::filesystem::path& path) : file_(path, ErrorKind::data) {
  std::map<std::string, ArchiveMember> members;
  TarWalker(file_, members).walk();
  for (auto& [name, member] : members) members_.push_back(std::move(member));
}

std::vector<std::uint8_t> TarArchive::read(const ArchiveMember& member) const {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(member.bytes));
  file_.read_at(member.offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

}  // namespace bireme
