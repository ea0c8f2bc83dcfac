#include "launch/tensorboard.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace bireme {

namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78U : 0U);
    table[i] = value;
  }
  return table;
}

/// The mask of TensorFlow's record format: a checksum of bytes that hold checksums is weak without it.
std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U; }

template <class T>
void append_little_endian(std::string& to, T value) {
  for (std::size_t byte = 0; byte < sizeof(T); ++byte) to += static_cast<char>(value >> (8 * byte));
}

void append_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>(value | 0x80);
  to += static_cast<char>(value);
}

// Protocol-buffer fields: (number << 3 | wire type), then the value.
void append_integer(std::string& to, int field, std::uint64_t value) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3);
  append_varint(to, value);
}
void append_double(std::string& to, int field, double value) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 1);
  append_little_endian(to, std::bit_cast<std::uint64_t>(value));
}
void append_bytes(std::string& to, int field, std::string_view bytes) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 2);
  append_varint(to, bytes.size());
  to += bytes;
}
void append_float(std::string& to, int field, float value) {
  append_varint(to, static_cast<std::uint64_t>(field) << 3 | 5);
  append_little_endian(to, std::bit_cast<std::uint32_t>(value));
}

std::string record(std::string_view event) {
  std::string bytes;
  append_little_endian(bytes, std::uint64_t{event.size()});
  append_little_endian(bytes, masked_crc(bytes));
  bytes += event;
  append_little_endian(bytes, masked_crc(event));
  return bytes;
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string event(std::int64_t step, int field, std::string_view content) {
  std::string bytes;
  append_double(bytes, 1, seconds_since_1970());
  append_integer(bytes, 2, static_cast<std::uint64_t>(step));
  append_bytes(bytes, field, content);
  return record(bytes);
}

std::filesystem::path event_file(const std::filesystem::path& folder) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return folder / fmt::format("events.out.tfevents.{:010d}.{}.{}",
                              static_cast<std::int64_t>(seconds_since_1970()), host, getpid());
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto table = make_crc_table();
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<std::uint8_t>(byte)) & 0xFFU];
  return ~crc;
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder, std::int64_t resume_step)
    : file_(event_file(folder)) {
  file_.append(event(0, 3, "brain.Event:2"));
  if (resume_step <= 0) return;
  std::string session_log;
  append_integer(session_log, 1, 1);  // status = START
  file_.append(event(resume_step, 7, session_log));
}

void TensorboardWriter::write(std::int64_t step, std::span<const Metric> metrics) {
  std::string summary;
  for (const Metric& metric : metrics) {
    std::string value;
    append_bytes(value, 1, metric.name);
    append_float(value, 2, static_cast<float>(metric.value));
    append_bytes(summary, 1, value);
  }
  file_.append(event(step, 5, summary));
}

}  // namespace bireme
