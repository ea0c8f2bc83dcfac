#include "launch/gnuplot.h"

#include <fcntl.h>
#include <spawn.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/base/error.h"
#include "core/base/files.h"
#include "launch/attention_picture.h"

namespace bireme {

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "bireme-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr)
    throw Error(
        ErrorKind::checkpoint, fmt::format("no temporary folder can be made ({})", std::strerror(errno)),
        std::filesystem::temp_directory_path().string(), "free space there, or set TMPDIR to another place");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

namespace {

constexpr int not_found = 127;

/// Runs a program with its output in a file. @return its exit status, not_found if there is no such program
int run_program(std::vector<std::string> words, const std::filesystem::path& output) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return not_found;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return 1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string first_complaint(const std::string& text) {
  // gnuplot shows the line with a caret below, then says: "script", line 12: what is wrong
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    if (line.find("line ") != std::string::npos && line.find(':') != std::string::npos) return line;
    begin = end + 1;
  }
  return text.substr(0, 200);
}

constexpr std::int64_t output_limit = 1 << 20;

}  // namespace

void run_gnuplot(const std::string& script, const std::filesystem::path& folder) {
  const auto script_path = folder / "script.gp", output_path = folder / "output.txt";
  write_file_atomically(script_path, script);
  // -d: the user's own start-up file does not change the picture.
  const int status = run_program({"gnuplot", "-d", script_path.string()}, output_path);
  if (status == not_found)
    throw Error(ErrorKind::other, "gnuplot, which draws the pictures, was not found", "this machine",
                "install it (Debian's package gnuplot-nox), or use the numbers in metrics.jsonl");
  if (status != 0)
    throw Error(ErrorKind::other,
                fmt::format("gnuplot ended with status {} ({})", status,
                            first_complaint(read_file(output_path, output_limit, ErrorKind::other))),
                "this machine", "check that `gnuplot -e 'set terminal pngcairo'` works");
}

std::string gnuplot_string(std::string_view text) {
  // Single quotes take a text as it is, but for the quote itself.
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'' && result.size() == 1) {
      result += "\u2019";  // gnuplot takes two quotes at the beginning for an empty text
      continue;
    }
    if (c == '\'') result += '\'';
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result + "'";
}

std::string gnuplot_terminal(const std::filesystem::path& output, int width, int height) {
  const std::string ending = output.extension().string();
  if (ending == ".png")
    return fmt::format("pngcairo noenhanced size {},{} font 'Sans,10' background rgb '#ffffff'", width,
                       height);
  if (ending == ".svg")
    return fmt::format("svg noenhanced size {},{} font 'Sans,12' background rgb '#ffffff'", width, height);
  if (ending == ".pdf")
    return fmt::format("pdfcairo noenhanced size {}in,{}in font 'Sans,7'", width / 130.0, height / 130.0);
  throw Error(ErrorKind::usage, fmt::format("pictures end in .png, .svg or .pdf, not in `{}`", ending),
              output.string(), "rename the output");
}

void require_picture_name(const std::filesystem::path& output) {
  static_cast<void>(gnuplot_terminal(output, 1, 1));
}

std::string gnuplot_viridis(int steps, double end) {
  std::string text = "set palette defined (";
  for (int i = 0; i < steps; ++i) {
    const Rgb color = viridis(steps == 1 ? 0 : end * i / (steps - 1));
    const std::string name = fmt::format("'#{:02x}{:02x}{:02x}'", color.red, color.green, color.blue);
    text += fmt::format("{}{} {}, {} {}", i == 0 ? "" : ", ", i, name, i + 1, name);
  }
  return text + ") maxcolors " + std::to_string(steps) + "\n";
}

void draw_with_gnuplot(const std::filesystem::path& output,
                       const std::function<std::string(const std::filesystem::path&)>& script_for) {
  const TemporaryFolder folder;
  const auto drawn = folder.path() / ("picture" + output.extension().string());
  run_gnuplot(script_for(drawn), folder.path());
  constexpr std::int64_t limit = 1 << 28;
  write_file_atomically(output, read_file(drawn, limit, ErrorKind::other));
}

std::string gnuplot_version() {
  const TemporaryFolder folder;
  const auto output = folder.path() / "version.txt";
  if (run_program({"gnuplot", "--version"}, output) != 0) return "";
  std::string text = read_file(output, output_limit, ErrorKind::other);
  return text.substr(0, text.find('\n'));
}

}  // namespace bireme
