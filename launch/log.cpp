#include "launch/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <mutex>
#include <string>
#include <string_view>

#include "launch/append_file.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

void write_to_standard_error(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

/// Standard error. On a terminal a line first erases the progress bar, which draws itself again at its next
/// turn.
class TerminalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit TerminalSink(int rank) : rank_(rank) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string line = is_terminal_ ? "\r\x1b[K" : "";
    if (rank_ > 0) line += fmt::format("[r{}] ", rank_);
    if (message.level >= spdlog::level::warn)
      line += message.level == spdlog::level::warn ? "warning: " : "error: ";
    line.append(message.payload.data(), message.payload.size());
    // Pipes keep writes of up to 4096 bytes whole.
    constexpr std::size_t longest = 4096;
    if (line.size() >= longest) line = line.substr(0, longest - 4) + "...";
    write_to_standard_error(line + "\n");
  }
  void flush_() override {}

 private:
  int rank_;
  bool is_terminal_ = terminal_columns(STDERR_FILENO) > 0;
};

/// A file whose failures are counted, not thrown: spdlog's own would print an error a second.
class FileSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FileSink(const std::filesystem::path& path) : file_(path) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    if (!file_.append({text.data(), text.size()}) && file_.lost() == 1)
      write_to_standard_error(fmt::format("warning: {} cannot be written ({}): going on without it\n",
                                          file_.path().string(), file_.problem()));
  }
  void flush_() override {}

 private:
  AppendFile file_;
};

}  // namespace

void open_log(const LogOptions& options) {
  const auto level = options.is_verbose ? spdlog::level::debug : spdlog::level::info;
  const auto terminal = std::make_shared<TerminalSink>(options.rank);
  terminal->set_level(options.rank == 0 ? level : spdlog::level::warn);
  auto logger = std::make_shared<spdlog::logger>("bireme", terminal);
  if (!options.folder.empty()) {
    const auto path = options.rank == 0
                          ? options.folder / "log.txt"
                          : options.folder / "logs" / fmt::format("rank-{:05d}.log", options.rank);
    std::error_code error;  // a folder that cannot be made shows as a file that cannot be opened
    std::filesystem::create_directories(path.parent_path(), error);
    const auto file = std::make_shared<FileSink>(path);
    file->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l: %v");
    logger->sinks().push_back(file);
  }
  logger->set_level(level);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace bireme
