#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bireme {

/// A line of a panel.
struct Series {
  enum class Style {
    line,
    faint,
    marked,
    dashed,
    points,  ///< small, and not connected
    area     ///< filled down to 0
  };

  std::string title;  ///< empty: not in the panel's legend
  std::vector<std::pair<double, double>> points;
  int color = 0;  ///< index into a palette of distinct colours, modulo its size
  Style style = Style::line;
};

/// One set of axes.
struct Panel {
  std::string title, x_label = "step";
  std::vector<Series> series;
  bool starts_at_zero = false;  ///< the y axis begins at 0
  bool counts_steps = true;     ///< x are steps: whole numbers from 0 on
  std::optional<std::pair<double, double>> x_range{},
      y_range{};       ///< ends of an axis; by the data unless given
  std::string note{};  ///< within the axes, at the top
};

/// Panels in rows and columns, as many as fit the picture well, under a line of words in colours: the
/// picture's title, or a legend for all panels.
struct Figure {
  struct Word {
    std::string text;
    int color = -1;  ///< as in Series; below 0: black
  };
  std::vector<Word> words;
  std::vector<Panel> panels;
};

/// The figure as a script for gnuplot, data included, that draws into `output`.
/// @throws Error (usage) if that ends neither in .png, .svg nor .pdf
std::string gnuplot_script(const Figure& figure, const std::filesystem::path& output);

/// Draws with gnuplot, which is started without a shell, into a PNG, SVG or PDF file, by the ending of
/// `output`. The file appears whole or not at all.
/// @throws Error (usage) for another ending; (other) when gnuplot is not installed, or fails, with its own
/// first words
void draw(const Figure& figure, const std::filesystem::path& output);

/// A curve without its noise: at each point the value of the straight line fitted to the points within
/// `radius` before and after it. Away from the ends that is their mean; at the ends, where one side is short,
/// it does not bend slopes.
std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& points,
                                                std::int64_t radius);

}  // namespace bireme
