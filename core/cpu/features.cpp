#include "core/cpu/features.h"

#include <hwy/highway.h>

#include <cassert>
#include <utility>

namespace bireme::cpu {

namespace {

constexpr std::pair<InstructionSet, std::int64_t> kTargets[] = {
    {InstructionSet::sse4, HWY_SSE4}, {InstructionSet::avx2, HWY_AVX2}, {InstructionSet::avx512, HWY_AVX3}};

}  // namespace

const char* to_string(InstructionSet set) {
  switch (set) {
    case InstructionSet::sse4: return "sse4";
    case InstructionSet::avx2: return "avx2";
    case InstructionSet::avx512: return "avx512";
  }
  return "?";
}

std::vector<InstructionSet> supported_instruction_sets() {
  std::vector<InstructionSet> sets;
  for (const auto& [set, target] : kTargets)
    if ((hwy::SupportedTargets() & HWY_TARGETS & target) != 0) sets.push_back(set);
  return sets;
}

bool has_bf16_instructions() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

UseInstructionSet::UseInstructionSet(InstructionSet set) {
  for (const auto& [candidate, target] : kTargets)
    if (candidate == set) hwy::SetSupportedTargetsForTest(target);
}

UseInstructionSet::~UseInstructionSet() { hwy::SetSupportedTargetsForTest(0); }

}  // namespace bireme::cpu
