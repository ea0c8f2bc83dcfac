#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

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

/// A text as gnuplot's script has it, between single quotes; control characters become spaces.
std::string gnuplot_string(std::string_view text);

/// gnuplot's terminal for the ending of a file, and a size in pixels (130 of which are an inch of a PDF).
/// @throws Error (usage) if it ends neither in .png, .svg nor .pdf
std::string gnuplot_terminal(const std::filesystem::path& output, int width, int height);

/// The same check before the work that the picture is made of.
void require_picture_name(const std::filesystem::path& output);

/// `set palette` with the viridis scale from its dark end to `end` of 0 … 1 (lines on white leave out the
/// palest), in `steps` even colours.
std::string gnuplot_viridis(int steps = 64, double end = 1);

/// Draws what `script_for` writes for a file that ends as `output` does. The file appears whole or not at
/// all.
/// @throws Error (other) as run_gnuplot, (usage) when its folder cannot be written to
void draw_with_gnuplot(const std::filesystem::path& output,
                       const std::function<std::string(const std::filesystem::path&)>& script_for);

/// "gnuplot 5.4 patchlevel 4", or empty when it is not installed.
std::string gnuplot_version();

}  // namespace bireme
