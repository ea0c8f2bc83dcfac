#include "launch/metrics.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/base/log.h"

namespace bireme {

namespace {

/// The step of a line of metrics, or nothing if it is torn.
std::optional<std::int64_t> step_of(const nlohmann::json& line) {
  if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return std::nullopt;
  return line["step"].get<std::int64_t>();
}

/// Cuts the file after the last line of the steps up to `last_step`, or to nothing when that is 0. In place:
/// it must work on a full disk too.
void truncate_after(const std::filesystem::path& path, std::int64_t last_step) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return;  // a first start, or somebody's pipe
  std::ifstream stream(path, std::ios::binary);
  std::uintmax_t kept = 0, position = 0;
  for (std::string line; std::getline(stream, line) && !stream.eof();) {
    position += line.size() + 1;
    const auto step = step_of(try_parse_json(line));
    if (!step) continue;
    if (*step > last_step || last_step == 0) break;  // a fresh start keeps nothing
    kept = position;
  }
  error.clear();
  if (std::filesystem::file_size(path, error) > kept) std::filesystem::resize_file(path, kept, error);
  if (error) log_warning("{} cannot be cut back to step {}: {}", path.string(), last_step, error.message());
}

std::filesystem::path prepared(const std::filesystem::path& folder, std::int64_t resume_step) {
  std::error_code error;
  std::filesystem::create_directories(folder / "tensorboard", error);
  if (error) log_warning("{} cannot be made: {}", (folder / "tensorboard").string(), error.message());
  truncate_after(folder / "metrics.jsonl", resume_step);
  return folder;
}

}  // namespace

Metrics::Metrics(const std::filesystem::path& folder, std::int64_t resume_step)
    : lines_(prepared(folder, resume_step) / "metrics.jsonl"),
      events_(folder / "tensorboard", resume_step > 0 ? resume_step + 1 : 0) {}

void Metrics::warn_once(const AppendFile& file, bool& has_warned) {
  if (file.lost() == 0 || has_warned) return;
  has_warned = true;
  log_warning("{} cannot be written ({}): training goes on, and what does not fit is lost",
              file.path().string(), file.problem());
}

void Metrics::set(std::string_view name, double value) {
  const auto found =
      std::find_if(current_.begin(), current_.end(), [&](const Metric& m) { return m.name == name; });
  if (found == current_.end()) {
    current_.push_back({std::string(name), value});
  } else {
    found->value = value;
  }
}

void Metrics::write(std::int64_t step) {
  lines_.append(metrics_line(step, current_));
  events_.write(step, current_);
  warn_once(lines_, has_warned_of_lines_);
  warn_once(events_.file(), has_warned_of_events_);
  current_.clear();
}

std::string metrics_line(std::int64_t step, std::span<const Metric> metrics) {
  nlohmann::ordered_json line;
  line["step"] = step;
  for (const Metric& metric : metrics) {
    // JSON has no infinity; whole numbers print without a fraction.
    if (!std::isfinite(metric.value)) {
      line[metric.name] = nullptr;
    } else if (metric.value == std::floor(metric.value) && std::abs(metric.value) < 1e15) {
      line[metric.name] = static_cast<std::int64_t>(metric.value);
    } else {
      line[metric.name] = metric.value;
    }
  }
  return json_text(line) + "\n";
}

const MetricHistory::Curve* MetricHistory::find(const std::string& name) const {
  const auto found = curves.find(name);
  return found == curves.end() ? nullptr : &found->second;
}

MetricHistory read_metrics(const std::filesystem::path& run) {
  const auto path = std::filesystem::is_directory(run) ? run / "metrics.jsonl" : run;
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    throw Error(ErrorKind::data, "there are no metrics", path.string(),
                "give the folder of a run: bireme train --run DIR");
  MetricHistory history;
  std::int64_t number = 0;
  for (std::string text; std::getline(stream, text);) {
    ++number;
    const auto line = try_parse_json(text);
    const auto step = step_of(line);
    if (!step) {
      if (stream.eof()) break;  // a run that was killed while it wrote, or is writing
      throw Error(ErrorKind::data, "not a JSON object with a step",
                  fmt::format("{}:{}", path.string(), number), "remove the line; the others are read");
    }
    for (const auto& [name, value] : line.items())
      if (name != "step" && value.is_number()) history.curves[name].emplace_back(*step, value.get<double>());
  }
  return history;
}

}  // namespace bireme
