#include "launch/plot.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launch/gnuplot.h"

namespace bireme {

namespace {

/// Colours that people with any kind of colour vision tell apart (Paul Tol's bright scheme), and the same in
/// pale.
struct Color {
  const char *full, *pale;
};
constexpr std::array palette = {Color{"#4477aa", "#c0d0e2"}, Color{"#ee6677", "#fac9cf"},
                                Color{"#228833", "#b6d9bc"}, Color{"#aa3377", "#e2bbd1"},
                                Color{"#ccbb44", "#efe8bf"}, Color{"#66ccee", "#caeefa"},
                                Color{"#777777", "#d4d4d4"}};

const Color& color_of(int index) { return palette[static_cast<std::size_t>(index) % palette.size()]; }

std::string data_block(const Series& series, std::size_t number) {
  std::string text = fmt::format("$data{} << end_of_data\n", number);
  for (const auto& [x, y] : series.points) text += fmt::format("{} {}\n", x, y);
  return text + "end_of_data\n";
}

std::string plot_element(const Series& series, std::size_t number) {
  const Color& color = color_of(series.color);
  const bool is_single = series.points.size() == 1;  // a line through one point shows nothing
  std::string style;
  switch (series.style) {
    case Series::Style::line: style = fmt::format("lines lw 2 lc rgb '{}'", color.full); break;
    case Series::Style::faint: style = fmt::format("lines lw 1 lc rgb '{}'", color.pale); break;
    case Series::Style::marked:
      style = fmt::format("linespoints lw 2 pt 7 ps 0.7 lc rgb '{}'", color.full);
      break;
    case Series::Style::dashed: style = fmt::format("lines lw 1.5 dt 2 lc rgb '{}'", color.full); break;
    case Series::Style::points: style = fmt::format("points pt 7 ps 0.3 lc rgb '{}'", color.full); break;
    case Series::Style::area: style = fmt::format("filledcurves y1=0 lc rgb '{}'", color.pale); break;
  }
  if (is_single && series.style != Series::Style::points)
    style = fmt::format("points pt 7 ps 0.9 lc rgb '{}'", color.full);
  return fmt::format("$data{} using 1:2 with {} notitle", number, style);
}

/// Five to ten ticks at round numbers, written out up to 100,000 and in thousands or millions beyond.
std::string x_tics(const Panel& panel) {
  if (!panel.counts_steps) return "set xtics autofreq\nset format x '%g'\n";
  double last = 1;
  for (const Series& series : panel.series)
    for (const auto& [x, y] : series.points) last = std::max(last, x);
  const double power = std::pow(10, std::floor(std::log10(last / 5)));
  const double ratio = last / 5 / power;
  const double distance = std::max(1.0, power * (ratio >= 5 ? 5 : ratio >= 2 ? 2 : 1));
  const char* format = last < 1e5                                         ? "%.0f"
                       : std::fmod(distance, last < 1e6 ? 1e3 : 1e6) == 0 ? "%.0s%c"
                                                                          : "%.1s%c";
  return fmt::format("set xtics {}\nset format x '{}'\n", distance, format);
}

constexpr double kLetterWidth = 6.4;  // mean width of a letter of 10 points, in pixels
constexpr int kPanelWidth = 560, kPanelHeight = 360, kAxesWidth = 455, kTitleLine = 26;

/// The legend: titles side by side above the axes, each in the colour of its line, so that no box hides a
/// curve.
std::string legend(const Panel& panel) {
  std::string text = "unset label\n";
  if (!panel.note.empty())
    text += fmt::format("set label {} at graph 0.03,0.95 noenhanced textcolor rgb '#222222' front\n",
                        gnuplot_string(panel.note));
  double at = 0;
  for (const Series& series : panel.series) {
    if (series.title.empty()) continue;
    const std::string title = (series.style == Series::Style::dashed ? "- - " : "") + series.title;
    text += fmt::format("set label {} at graph {:.4f},1 offset 0,0.8 noenhanced textcolor rgb '{}'\n",
                        gnuplot_string(title), at, color_of(series.color).full);
    at += (static_cast<double>(title.size()) + 2) * kLetterWidth / kAxesWidth;
  }
  return text;
}

/// The words over the whole picture, in as many centred lines as they need.
std::vector<std::vector<Figure::Word>> title_lines(const Figure& figure, int width) {
  std::vector<std::vector<Figure::Word>> lines(1);
  const auto room = static_cast<std::size_t>(width / kLetterWidth / 1.4);
  std::size_t used = 0;
  for (const Figure::Word& word : figure.words) {
    if (used > 0 && used + word.text.size() > room) {
      lines.emplace_back();
      used = 0;
    }
    lines.back().push_back(word);
    used += word.text.size() + 3;
  }
  return lines;
}

std::string title_labels(const std::vector<std::vector<Figure::Word>>& lines, int width, int height) {
  std::string text;
  for (std::size_t row = 0; row < lines.size(); ++row) {
    const double letter = kLetterWidth * 1.4;  // 14 points
    double length = -3;
    for (const Figure::Word& word : lines[row]) length += static_cast<double>(word.text.size()) + 3;
    double at = (width - length * letter) / 2;
    for (const Figure::Word& word : lines[row]) {
      text += fmt::format("set label {} at screen {:.4f},{:.4f} noenhanced font ',14' textcolor rgb '{}'\n",
                          gnuplot_string(word.text), at / width,
                          1 - (static_cast<double>(row) + 0.75) * kTitleLine / height,
                          word.color < 0 ? "#222222" : color_of(word.color).full);
      at += (static_cast<double>(word.text.size()) + 3) * letter;
    }
  }
  return text;
}

/// The ends of an axis as gnuplot takes them.
std::string range(const std::optional<std::pair<double, double>>& ends, bool starts_at_zero) {
  if (ends) return fmt::format("[{}:{}]", ends->first, ends->second);
  return starts_at_zero ? "[0:*]" : "[*:*]";
}

struct Grid {
  int rows, columns;
};
Grid grid_of(std::size_t panels) {
  const int columns = panels <= 1 ? 1 : panels <= 4 ? 2 : 3;
  return {(static_cast<int>(panels) + columns - 1) / columns, columns};
}

}  // namespace

std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& points,
                                                std::int64_t radius) {
  const std::int64_t count = std::ssize(points);
  // Sums up to each point of y and of i · y, so that a window costs the same however wide it is.
  std::vector<double> sums(points.size() + 1), moments(points.size() + 1);
  for (std::size_t i = 0; i < points.size(); ++i) {
    sums[i + 1] = sums[i] + points[i].second;
    moments[i + 1] = moments[i] + static_cast<double>(i) * points[i].second;
  }
  std::vector<std::pair<double, double>> result;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = std::max<std::int64_t>(i - radius, 0), end = std::min(i + radius + 1, count);
    const auto n = static_cast<double>(end - begin), middle = static_cast<double>(begin + end - 1) / 2;
    const double sum = sums[static_cast<std::size_t>(end)] - sums[static_cast<std::size_t>(begin)];
    const double moment = moments[static_cast<std::size_t>(end)] - moments[static_cast<std::size_t>(begin)];
    const double spread = n * (n * n - 1) / 12;  // sum of (j - middle)^2 over the window
    const double slope = spread > 0 ? (moment - middle * sum) / spread : 0;
    result.emplace_back(points[static_cast<std::size_t>(i)].first,
                        sum / n + slope * (static_cast<double>(i) - middle));
  }
  return result;
}

std::string gnuplot_script(const Figure& figure, const std::filesystem::path& output) {
  const Grid grid = grid_of(figure.panels.size());
  const int width = kPanelWidth * grid.columns;
  const auto lines = title_lines(figure, width);
  const int height = kPanelHeight * grid.rows + kTitleLine * static_cast<int>(lines.size());
  const double top = 1 - static_cast<double>(kTitleLine * lines.size()) / height;
  std::string text = "set encoding utf8\n";
  std::size_t number = 0;
  for (const Panel& panel : figure.panels)
    for (const Series& series : panel.series) text += data_block(series, number++);
  text += fmt::format("set terminal {}\nset output {}\n", gnuplot_terminal(output, width, height),
                      gnuplot_string(output.string()));
  text += fmt::format(
      "set multiplot\n"
      "set border 3 lc rgb '#888888'\n"
      "set tics nomirror out scale 0.6 textcolor rgb '#444444'\n"
      "set grid lc rgb '#e6e6e6' lt 1 lw 1\n"
      "unset key\n"
      "set lmargin 9\nset rmargin 3\nset tmargin 4\nset bmargin 3.2\n");
  number = 0;
  const double panel_width = 1.0 / grid.columns, panel_height = top / grid.rows;
  for (std::size_t p = 0; p < figure.panels.size(); ++p) {
    const Panel& panel = figure.panels[p];
    const std::size_t columns = static_cast<std::size_t>(grid.columns), below = p / columns;
    const auto row = static_cast<double>(below), column = static_cast<double>(p % columns);
    text += fmt::format("set origin {:.4f},{:.4f}\nset size {:.4f},{:.4f}\n", column * panel_width,
                        top - (row + 1) * panel_height, panel_width, panel_height);
    text += legend(panel);
    if (p == 0) text += title_labels(lines, width, height);
    text += fmt::format(
        "set title {} noenhanced font ',12' offset 0,0.7\nset xlabel {} noenhanced offset 0,0.4 textcolor "
        "rgb '#444444'\n{}"
        "set xrange {}\nset yrange {}\n"
        // Room above and below the curves, so that none hides on the frame.
        "set offsets graph 0, graph 0, graph 0.06, graph {}\nplot ",
        gnuplot_string(panel.title), gnuplot_string(panel.x_label), x_tics(panel),
        range(panel.x_range, false), range(panel.y_range, panel.starts_at_zero),
        panel.starts_at_zero ? "0" : "0.04");
    for (std::size_t i = 0; i < panel.series.size(); ++i)
      text += (i == 0 ? "" : ", \\\n     ") + plot_element(panel.series[i], number++);
    text += "\n";
  }
  return text + "unset multiplot\nset output\n";
}

void draw(const Figure& figure, const std::filesystem::path& output) {
  draw_with_gnuplot(output,
                    [&](const std::filesystem::path& drawn) { return gnuplot_script(figure, drawn); });
}

}  // namespace bireme
