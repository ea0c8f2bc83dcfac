#pragma once

#include <string>

#include "objectives/evaluate/judge.h"
#include "tests/support/answer_fixture.h"

namespace bireme::test {

inline double judge_weight(int channel) { return 0.1 * ((channel * 7) % 11 - 5); }

/// The fixture's model as a judge, with weights that are made up.
inline std::filesystem::path make_judge(const AnswerFixture& fixture, const std::string& name,
                                        const std::string& base = "a base", const std::string& part = "judge",
                                        double sign = 1) {
  const std::filesystem::path folder = fixture.exported(name);
  const std::int64_t channels = fixture.published->model().channels();
  ParameterSet head;
  head.add({.name = "score.weight", .shape = {1, channels}});
  head.build(*fixture.memory, {.gradients = false});
  for (std::int64_t c = 0; c < channels; ++c)
    head[0].value().data<float>()[c] = static_cast<float>(sign * judge_weight(static_cast<int>(c)));
  export_tensors(folder, "judge",
                 {{.name = "score.weight", .shape = {1, channels}, .parameter = "score.weight"}}, head, {});
  const JudgeDescription description{.base = base, .part = part, .data = "a fingerprint", .end = 256};
  fixture.folder.write(name + "/judge.json", description.to_json());
  return folder;
}

}  // namespace bireme::test
