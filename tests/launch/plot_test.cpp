#include "launch/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "core/tensor/memory.h"
#include "launch/decay_picture.h"
#include "launch/gnuplot.h"
#include "launch/propagation_picture.h"
#include "launch/run_curves.h"

namespace bireme {
namespace {

std::string first_bytes(const std::filesystem::path& path, std::size_t count) {
  std::ifstream stream(path, std::ios::binary);
  std::string bytes(count, '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<std::size_t>(stream.gcount()));
  return bytes;
}

/// A run of `steps` logged steps with all metrics of DINO.
RunCurves made_up_run(const std::string& name, int steps) {
  RunCurves run{.name = name, .metrics = {}, .prototypes = 1024};
  for (int i = 1; i <= steps; ++i) {
    for (const char* metric : {"loss", "learning_rate", "teacher_entropy", "kl"})
      run.metrics.curves[metric].emplace_back(i * 10, 1.0 / i);
    run.metrics.curves["knn_teacher"].emplace_back(i * 10, 0.7);
  }
  run.metrics.curves["knn_untrained"].emplace_back(0, 0.6);
  return run;
}

TEST(Plot, OneRunShowsEveryQuantityThatItHas) {
  const Figure figure = curves_figure({made_up_run("a", 20)});
  ASSERT_EQ(figure.panels.size(), 4U);  // loss, k-NN, entropies, learning rate; no gradient norm, no speed
  EXPECT_EQ(figure.panels[0].title, "loss");
  const Panel& knn = figure.panels[1];
  ASSERT_EQ(knn.series.size(), 2U);
  EXPECT_EQ(knn.series[0].title, "teacher");
  EXPECT_DOUBLE_EQ(knn.series[0].points[0].second, 70);  // percent
  // Accuracy before training is one number; its line reaches over the whole run.
  EXPECT_EQ(knn.series[1].points.front().first, 0);
  EXPECT_EQ(knn.series[1].points.back().first, 200);
  // ln K tells the uniform collapse.
  EXPECT_DOUBLE_EQ(figure.panels[0].series.back().points[0].second, std::log(1024.0));
}

TEST(Plot, SeveralRunsAreToldApartByTheirNames) {
  const Figure figure = curves_figure({made_up_run("first", 20), made_up_run("second", 20)});
  const auto& series = figure.panels[0].series;
  ASSERT_EQ(series.size(), 3U);  // a line each, and ln K
  ASSERT_EQ(figure.words.size(), 2U);
  EXPECT_EQ(figure.words[0].text, "first");
  EXPECT_EQ(figure.words[0].color, series[0].color);
  EXPECT_EQ(figure.words[1].text, "second");
  EXPECT_EQ(figure.words[1].color, series[1].color);
  EXPECT_NE(series[0].color, series[1].color);
}

TEST(Plot, SmoothingAveragesNoiseAndBendsNoSlope) {
  std::vector<std::pair<double, double>> line;
  for (int i = 0; i < 10; ++i) line.emplace_back(i * 7, 2.0 * i - 3);
  const auto same = smoothed(line, 3);
  for (std::size_t i = 0; i < line.size(); ++i)
    EXPECT_NEAR(same[i].second, line[i].second, 1e-12)
        << i;  // sums of small integers: rounding of one division each
  const auto mean = smoothed({{0, 0}, {1, 3}, {2, 0}, {3, 3}, {4, 0}}, 1);
  EXPECT_DOUBLE_EQ(mean[1].second, 1);
  EXPECT_DOUBLE_EQ(mean[2].second, 2);
  EXPECT_EQ(smoothed({{5, 4}}, 2), (std::vector<std::pair<double, double>>{{5, 4}}));
}

TEST(Plot, DrawsPngAndSvg) {
  if (gnuplot_version().empty()) GTEST_SKIP() << "gnuplot is not installed";
  const TemporaryFolder folder;
  // Names that a shell, gnuplot's strings or its output pipe would take for something else.
  const Figure figure =
      curves_figure({made_up_run("it's `id` $(id) \"x\"\n%s", 80), made_up_run("b_{2}", 3)});
  draw(figure, folder.path() / "|a b.png");
  EXPECT_EQ(first_bytes(folder.path() / "|a b.png", 8), "\x89PNG\r\n\x1a\n");
  draw(figure, folder.path() / "c.svg");
  EXPECT_EQ(first_bytes(folder.path() / "c.svg", 5), "<?xml");
  EXPECT_THROW(draw(figure, folder.path() / "c.bmp"), Error);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "c.bmp"));
}

TEST(Plot, DecayPictureHoldsEveryChannelOfEveryLayerBeforeAndAfter) {
  const DecayPicture picture{.initial = {{0.9, 0.5, 0}, {1, 0.9, 0.8}},
                             .trained = {{0.8, 0.4, 0.1}, {0.99, 0.7, 0.6}},
                             .name = "it's \"mine\""};
  const std::string script = decay_script(picture, "a.png");
  for (const char* part : {"$initial << ", "$trained << ", "'before training'", "'as it is'",
                           "2 layers of 3 channels", "it''s", "1 0.99 99.4991625", ") maxcolors 2"})
    EXPECT_NE(script.find(part), std::string::npos) << part << " in:\n" << script;
  if (gnuplot_version().empty()) GTEST_SKIP() << "gnuplot is not installed";
  const TemporaryFolder folder;
  draw_with_gnuplot(folder.path() / "a.png", [&](const auto& drawn) { return decay_script(picture, drawn); });
  EXPECT_EQ(first_bytes(folder.path() / "a.png", 8), "\x89PNG\r\n\x1a\n");
}

TEST(Plot, LookBackIsTheTimeConstantOfADecay) {
  EXPECT_NEAR(look_back(std::exp(-0.01)), 100, 1e-9);
  EXPECT_EQ(look_back(0), 0);
  EXPECT_EQ(look_back(1), 1e7) << "never forgets";
}

TEST(Plot, PropagationPictureMarksTheSubjectAndHasTheLimitsOfItsRuns) {
  const auto memory = make_host_memory();
  Propagation trace{.answer = 1, .clean_probability = 0.5, .corrupted_probability = 0.01, .probability = {}};
  trace.probability = Tensor(*memory, {2, 3}, DType::f64);
  for (int i = 0; i < 6; ++i) trace.probability.data<double>()[i] = 0.05 * (i + 1);
  PropagationPicture picture{
      .trace = trace, .tokens = {"The", "'s", "x"}, .subject_begin = 1, .subject_end = 2, .answer = "Paris"};
  const std::string script = propagation_script(picture, "a.svg");
  const char* const label_of_subject =
      "set label '\u2019s' at first 1,graph 0 offset 0,-0.6 right rotate by 55 noenhanced "
      "textcolor rgb '#aa3377'";
  for (const char* part :
       {"0 1 0.05\n", "2 2 0.3\n", "set cbrange [0.01:0.5]", "0.500 in the clean run", label_of_subject})
    EXPECT_NE(script.find(part), std::string::npos) << part << " in:\n" << script;
  // Noise that does no harm: the colours take in what there is.
  trace.corrupted_probability = 0.6;
  EXPECT_NE(propagation_script(picture, "a.svg").find("set cbrange [0.05:0.6]"), std::string::npos);
  if (gnuplot_version().empty()) GTEST_SKIP() << "gnuplot is not installed";
  const TemporaryFolder folder;
  draw_with_gnuplot(folder.path() / "a.svg",
                    [&](const auto& drawn) { return propagation_script(picture, drawn); });
  EXPECT_EQ(first_bytes(folder.path() / "a.svg", 5), "<?xml");
}

TEST(Plot, TokensAreWrittenSoThatAllOfThemIsSeen) {
  EXPECT_EQ(visible_text(" a\n"), "\u2423a\u21b5");
  EXPECT_EQ(visible_text("\xC3\xA9\xC3"), "\u00e9\\xC3") << "a character, and half of one";
  EXPECT_EQ(visible_text(std::string_view("\0", 1)), "\\x00");
}

TEST(Plot, MissingGnuplotNamesThePackage) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "/nonexistent", 1);
  std::string message;
  try {
    draw(curves_figure({made_up_run("a", 3)}), "/tmp/never-written.png");
  } catch (const Error& error) {
    message = error.what();
  }
  setenv("PATH", path.c_str(), 1);
  EXPECT_NE(message.find("gnuplot-nox"), std::string::npos) << message;
}

TEST(Plot, FailureOfGnuplotCarriesItsComplaint) {
  if (gnuplot_version().empty()) GTEST_SKIP() << "gnuplot is not installed";
  const TemporaryFolder folder;
  try {
    run_gnuplot("plot no_such_variable\n", folder.path());
    FAIL() << "a broken script was drawn";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("undefined variable: no_such_variable"), std::string::npos)
        << error.what();
  }
}

TEST(Plot, RunWithoutMetricsIsADataError) {
  try {
    read_run("/no/such/run");
    FAIL() << "a missing run was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
  }
}

}  // namespace
}  // namespace bireme
