#include "launch/decay_picture.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "launch/gnuplot.h"

namespace bireme {

namespace {

constexpr int kDecayWidth = 1000, kDecayHeight = 760;
constexpr double kPalest = 0.88;  // of the colour scale: beyond it yellow hides on white

std::string curves_block(const std::string& name, const DecayCurves& curves) {
  std::string text = fmt::format("${} << end_of_data\n", name);
  for (const auto& curve : curves) {
    for (std::size_t c = 0; c < curve.size(); ++c)
      text += fmt::format("{} {:.9g} {:.9g}\n", c + 1, curve[c], look_back(curve[c]));
    text += "\n\n";  // two empty lines end an index
  }
  return text + "end_of_data\n";
}

struct Axes {
  std::string data, title, y_label;
  double left, bottom;  // of the frame, as shares of the picture
  int column;           // of the data
};

std::string plot(const Axes& axes, std::size_t layers, const std::string& ranges) {
  constexpr double frame_width = 0.375, frame_height = 0.36;
  return fmt::format(
      "set lmargin at screen {:.3f}\nset rmargin at screen {:.3f}\nset bmargin at screen {:.3f}\nset tmargin "
      "at screen {:.3f}\nset title {} offset 0,-0.4\nset ylabel {}\n{}"
      "plot for [l=0:{}] ${} index l using 1:{}:(l+1) with lines lw {} lc palette\n",
      axes.left, axes.left + frame_width, axes.bottom, axes.bottom + frame_height, gnuplot_string(axes.title),
      gnuplot_string(axes.y_label), ranges, layers - 1, axes.data, axes.column, layers > 12 ? 1.3 : 2.0);
}

std::pair<double, double> look_back_range(const DecayPicture& picture) {
  double low = 1e7, high = 1;
  for (const DecayCurves* curves : {&picture.initial, &picture.trained})
    for (const auto& curve : *curves)
      for (const double decay : curve) {
        low = std::min(low, look_back(decay));
        high = std::max(high, look_back(decay));
      }
  // Below a hundredth of a token nothing is remembered, however much less it is.
  return {std::max(low / 1.5, 1e-2), high * 1.5};
}

}  // namespace

double look_back(double decay) {
  constexpr double most = 1e7;
  if (decay <= 0) return 0;
  return decay < 1 ? std::min(-1 / std::log(decay), most) : most;
}

std::string decay_script(const DecayPicture& picture, const std::filesystem::path& output) {
  const std::size_t layers = picture.trained.size(), channels = picture.trained.front().size();
  const auto [low, high] = look_back_range(picture);
  std::string text = "set encoding utf8\n";
  text += curves_block("initial", picture.initial) + curves_block("trained", picture.trained);
  text += fmt::format("set terminal {}\nset output {}\n", gnuplot_terminal(output, kDecayWidth, kDecayHeight),
                      gnuplot_string(output.string()));
  text += gnuplot_viridis(static_cast<int>(layers), kPalest);
  text += fmt::format(
      "set multiplot\n"
      "set border 3 lc rgb '#888888'\n"
      "set tics nomirror out scale 0.6 textcolor rgb '#444444'\n"
      "set grid lc rgb '#e6e6e6' lt 1 lw 1\n"
      "unset key\nunset colorbox\n"
      "set xrange [1:{0}]\nset cbrange [0.5:{1}.5]\n"
      "set ylabel offset 1,0 textcolor rgb '#444444'\n"
      "set label 1 {2} at screen 0.5,0.965 center font ',14'\n",
      std::max<std::size_t>(channels, 2), layers,
      gnuplot_string(
          fmt::format("How far back {} looks: {} layers of {} channels", picture.name, layers, channels)));
  const std::string shares = "set yrange [-0.02:1.02]\nset ytics 0.2\nunset xlabel\n";
  const std::string tokens = fmt::format(
      "set logscale y\nset yrange [{:.4g}:{:.4g}]\nset ytics autofreq\nset format y '%g'\n"
      "set xlabel 'channel, sorted by decay' textcolor rgb '#444444'\n",
      low, high);
  text +=
      plot({"initial", "before training", "kept from one token to the next", 0.075, 0.53, 2}, layers, shares);
  text += "unset label 1\n";
  text += plot({"trained", "as it is", "", 0.515, 0.53, 2}, layers, shares);
  text += plot({"initial", "", "tokens until 1/e is left", 0.075, 0.085, 3}, layers, tokens);
  // One bar tells the layers of all four.
  text += fmt::format(
      "set colorbox user origin 0.915,0.085 size 0.016,0.805\nset cblabel 'layer' textcolor rgb '#444444'\n"
      "set cbtics {} scale 0\n",
      layers <= 16   ? 1
      : layers <= 32 ? 2
                     : 4);
  text += plot({"trained", "", "", 0.515, 0.085, 3}, layers, tokens);
  return text + "unset multiplot\nset output\n";
}

}  // namespace bireme
