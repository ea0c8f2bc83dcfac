#pragma once

#include <filesystem>
#include <string>

namespace bireme {

/// A folder of its own under the system's place for temporary files, removed with all it holds at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Runs gnuplot on a script, from its argument list and without a shell; the script is written into `folder`.
/// @throws Error (other) when gnuplot is not installed, or fails, with the first line that it complains in
void run_gnuplot(const std::string& script, const std::filesystem::path& folder);

/// "gnuplot 5.4 patchlevel 4", or empty when it is not installed.
std::string gnuplot_version();

}  // namespace bireme
