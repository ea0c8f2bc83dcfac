#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/json.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {

struct Outcome {
  int code;
  std::string output;  ///< standard output
  std::string errors;  ///< standard error
};

/// Runs the program through a shell.
inline Outcome run_program(const std::string& words, const std::string& before = "") {
  const TemporaryFolder folder;
  const std::string errors = (folder.path() / "errors").string();
  FILE* pipe = popen((before + " '" BIREME_PROGRAM "' " + words + " 2>'" + errors + "'").c_str(), "r");
  std::string output;
  std::array<char, 4096> piece;
  for (std::size_t count; (count = fread(piece.data(), 1, piece.size(), pipe)) > 0;)
    output.append(piece.data(), count);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output, folder.read("errors")};
}

/// What a command printed under --json; fails the test that asks when it is not one object.
inline nlohmann::json json_of(const Outcome& outcome) {
  nlohmann::json result = try_parse_json(outcome.output);
  EXPECT_TRUE(result.is_object()) << outcome.output << outcome.errors;
  return result.is_object() ? result : nlohmann::json::object();
}

/// IDX files of `count` grey pictures of 8 x 8 pixels, no two alike, with labels 0, 1, 2, 0, ...
inline std::string idx_pictures(int count) {
  std::string bytes("\0\0\x08\x03\0\0\0", 7);
  bytes += static_cast<char>(count);
  bytes += std::string("\0\0\0\x08\0\0\0\x08", 8);
  for (int i = 0; i < count * 64; ++i) bytes += static_cast<char>((i * 7 + i / 64 * 31) % 251);
  return bytes;
}
inline std::string idx_labels(int count) {
  std::string bytes("\0\0\x08\x01\0\0\0", 7);
  bytes += static_cast<char>(count);
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(i % 3);
  return bytes;
}

}  // namespace bireme::test
