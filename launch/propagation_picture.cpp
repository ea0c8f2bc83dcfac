#include "launch/propagation_picture.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/text/utf8.h"
#include "launch/gnuplot.h"

namespace bireme {

namespace {

constexpr double kCharacter = 7.2, kLine = 15;  // size of a letter of 10 points, in pixels

std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// Where things lie on the picture, in pixels.
struct Layout {
  int width = 0, height = 0, left = 64, bottom = 0, frame_width = 0, frame_height = 0;
  bool is_turned = false;  // labels of tokens
};

Layout layout_of(const PropagationPicture& picture) {
  constexpr int right = 130, top = 70, axis_title = 32, least_width = 560, most_width = 1500;
  std::size_t longest = 1;
  for (const std::string& token : picture.tokens) longest = std::max(longest, characters(token));
  const auto length = static_cast<int>(picture.tokens.size());
  const auto layers = static_cast<int>(picture.trace.probability.shape()[0]);
  Layout layout;
  layout.is_turned = longest > 2;
  layout.frame_width = std::clamp(length * (layout.is_turned ? 44 : 22), least_width, most_width);
  layout.frame_height = std::clamp(layers * 34, 240, 640);
  layout.bottom =
      axis_title +
      static_cast<int>(layout.is_turned ? 0.8 * kCharacter * static_cast<double>(longest) + 24 : 26);
  layout.width = layout.left + layout.frame_width + right;
  layout.height = layout.bottom + layout.frame_height + top;
  return layout;
}

/// Each token below its column, those of the subject in a colour of their own.
std::string token_labels(const PropagationPicture& picture, const Layout& layout) {
  std::string text;
  for (std::size_t t = 0; t < picture.tokens.size(); ++t) {
    const auto position = static_cast<std::int64_t>(t);
    const bool is_subject = position >= picture.subject_begin && position < picture.subject_end;
    text +=
        fmt::format("set label {} at first {},graph 0 offset 0,{} {} noenhanced textcolor rgb '{}'\n",
                    gnuplot_string(picture.tokens[t]), t, layout.is_turned ? -0.6 : -0.9,
                    layout.is_turned ? "right rotate by 55" : "center", is_subject ? "#aa3377" : "#333333");
  }
  const double under = -(layout.bottom - 14.0) / layout.frame_height;
  return text + fmt::format(
                    "set label 'prompt; in colour the subject, whose embeddings had noise added' at graph "
                    "0.5,{:.4f} center textcolor rgb '#444444'\n",
                    under);
}

std::string probability_text(double p) {
  return p >= 0.001 ? fmt::format("{:.3f}", p) : fmt::format("{:.1e}", p);
}

/// The limits of the colours: those of the paper, and wider where noise has not lowered the probability.
std::pair<double, double> limits(const Propagation& trace) {
  const auto cells = trace.probability.values<double>();
  double low = trace.corrupted_probability, high = trace.clean_probability;
  if (low > 0.9 * high) {
    low = std::min({low, high, *std::min_element(cells.begin(), cells.end())});
    high = std::max({trace.corrupted_probability, high, *std::max_element(cells.begin(), cells.end())});
  }
  low = std::max(low, 1e-30);
  return {low, std::max(high, low * 1.01)};
}

/// Five ticks at even steps of the logarithm.
std::string color_ticks(double low, double high) {
  std::string text;
  constexpr int steps = 4;
  for (int i = 0; i <= steps; ++i) {
    const double p = low * std::pow(high / low, static_cast<double>(i) / steps);
    text += fmt::format("{}'{}' {:.6g}", i == 0 ? "" : ", ", probability_text(p), p);
  }
  return text;
}

}  // namespace

std::string visible_text(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t valid = valid_utf8(bytes);
    for (const char c : bytes.substr(0, valid)) {
      switch (c) {
        case ' ': text += "\u2423"; break;   // open box
        case '\n': text += "\u21b5"; break;  // carriage return
        case '\t': text += "\u21e5"; break;  // to bar
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            text += fmt::format("\\x{:02X}", c);
          } else {
            text += c;
          }
      }
    }
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    text += fmt::format("\\x{:02X}", static_cast<unsigned char>(bytes.front()));
    bytes.remove_prefix(1);
  }
  return text;
}

std::string propagation_script(const PropagationPicture& picture, const std::filesystem::path& output) {
  const Layout layout = layout_of(picture);
  const std::int64_t layers = picture.trace.probability.shape()[0],
                     length = picture.trace.probability.shape()[1];
  const auto [low, high] = limits(picture.trace);
  std::string text = "set encoding utf8\n$cells << end_of_data\n";
  for (std::int64_t l = 0; l < layers; ++l)
    for (std::int64_t t = 0; t < length; ++t)
      text += fmt::format("{} {} {:.9g}\n", t, l + 1,
                          std::max(picture.trace.probability.data<double>()[l * length + t], 1e-30));
  text += "end_of_data\n";
  text += fmt::format("set terminal {}\nset output {}\n",
                      gnuplot_terminal(output, layout.width, layout.height), gnuplot_string(output.string()));
  text += gnuplot_viridis();
  text += fmt::format(
      "set lmargin at screen {:.4f}\nset rmargin at screen {:.4f}\nset bmargin at screen {:.4f}\nset tmargin "
      "at screen {:.4f}\n",
      static_cast<double>(layout.left) / layout.width,
      static_cast<double>(layout.left + layout.frame_width) / layout.width,
      static_cast<double>(layout.bottom) / layout.height,
      static_cast<double>(layout.bottom + layout.frame_height) / layout.height);
  text += fmt::format(
      "set title {} font ',13' offset 0,1.2\n"
      "set label {} at graph 0.5,1 offset 0,0.9 center textcolor rgb '#444444'\n",
      gnuplot_string("Where the answer \u201c" + picture.answer + "\u201d comes from"),
      gnuplot_string(fmt::format("its probability: {} in the clean run, {} with noise, in colour with one "
                                 "vector put back",
                                 probability_text(picture.trace.clean_probability),
                                 probability_text(picture.trace.corrupted_probability))));
  text += token_labels(picture, layout);
  text += fmt::format(
      "set border 0\nunset key\nunset xtics\n"
      "set ytics {} scale 0 textcolor rgb '#444444'\nset ylabel 'layer' offset 1,0 textcolor rgb '#444444'\n"
      "set xrange [-0.5:{}.5]\nset yrange [0.5:{}.5]\n"
      "set logscale cb\nset cbrange [{:.6g}:{:.6g}]\nset cbtics ({}) scale 0.4 textcolor rgb '#444444'\n"
      "set colorbox user origin {:.4f},{:.4f} size {:.4f},{:.4f}\n"
      "set cblabel 'probability of the answer' offset 1.5,0 textcolor rgb '#444444'\n"
      "plot $cells using 1:2:3 with image pixels\n",
      layers <= 16   ? 1
      : layers <= 32 ? 2
                     : 4,
      length - 1, layers, low, high, color_ticks(low, high),
      static_cast<double>(layout.left + layout.frame_width + 18) / layout.width,
      static_cast<double>(layout.bottom) / layout.height, 16.0 / layout.width,
      static_cast<double>(layout.frame_height) / layout.height);
  return text + "set output\n";
}

}  // namespace bireme
