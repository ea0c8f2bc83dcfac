#include "objectives/evaluate/propagation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/rwkv.h"

namespace bireme::test {
namespace {

class PropagationTest : public testing::Test {
 protected:
  Propagation trace(DType type) {
    const RwkvFixture rwkv(golden_, type);
    return trace_propagation(*rwkv.backend, rwkv.model,
                             {.tokens = golden_.tensor("inputs/tokens"),
                              .subject_begin = position("subject_start"),
                              .subject_end = position("subject_end"),
                              .noise = golden_.tensor("inputs/noise"),
                              .type = type});
  }
  std::int64_t position(const char* name) const {
    return static_cast<std::int64_t>(golden_.number("config", name));
  }

  Golden golden_{"rwkv/analysis.h5"};
};

TEST_F(PropagationTest, MatchesGolden) {
  for (const auto& [type, tolerance] : {std::pair{DType::f32, 1e-5}, {DType::f64, 1e-9}}) {
    const Propagation result = trace(type);
    EXPECT_EQ(result.answer, golden_.tensor("outputs/answer").data<std::int32_t>()[0]);
    const auto expect_number = [&, tolerance = tolerance](double actual, const char* path) {
      const double expected = golden_.tensor(path).data<double>()[0];
      EXPECT_NEAR(actual, expected, tolerance * expected) << path;
    };
    expect_number(result.clean_probability, "outputs/clean_probability");
    expect_number(result.corrupted_probability, "outputs/corrupted_probability");
    expect_close(result.probability, golden_.tensor("outputs/probability"), tolerance);
  }
}

TEST_F(PropagationTest, DecayCurvesMatchGolden) {
  const RwkvFixture rwkv(golden_, DType::f64);
  const Tensor expected = golden_.tensor("outputs/decay");
  const auto curves = decay_curves(rwkv.model);
  ASSERT_EQ(curves.size(), 4U);
  for (std::size_t l = 0; l < curves.size(); ++l)
    for (std::size_t c = 0; c < curves[l].size(); ++c)
      EXPECT_NEAR(curves[l][c], expected.data<double>()[l * 24 + c], 1e-12);
}

TEST_F(PropagationTest, InitialDecayCurvesAreThoseOfAFreshModel) {
  const RwkvFixture fresh({.vocabulary = 5, .channels = 8, .layers = 3}, DType::f64);
  EXPECT_EQ(decay_curves(fresh.model), initial_decay_curves(fresh.model.options()));
}

TEST_F(PropagationTest, NoiseHasThreeTimesTheDeviationOfTheEmbeddings) {
  RwkvFixture rwkv({.vocabulary = 5, .channels = 8, .layers = 1}, DType::f32);
  const Tensor table = rwkv.model.parameters().find("emb.weight")->value();
  for (std::int64_t i = 0; i < table.elements(); ++i) table.data<float>()[i] = i % 2 == 0 ? 3 : 1;
  const Tensor noise = propagation_noise(rwkv.model, 100, 50, 1);
  double squares = 0;
  for (const float x : noise.values<float>()) squares += double{x} * x;
  // 40,000 draws know a deviation to 0.4 %.
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(noise.elements())), 3, 0.05);
}

TEST_F(PropagationTest, RefusesASubjectOutsideThePrompt) {
  const RwkvFixture rwkv(golden_, DType::f32);
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage,
                                [&] {
                                  trace_propagation(*rwkv.backend, rwkv.model,
                                                    {.tokens = golden_.tensor("inputs/tokens"),
                                                     .subject_begin = 7,
                                                     .subject_end = 10,
                                                     .noise = golden_.tensor("inputs/noise")});
                                }),
                       {"tokens 7 to 10", "the prompt has 9"}));
}

}  // namespace
}  // namespace bireme::test
