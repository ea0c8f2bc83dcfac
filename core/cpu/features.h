#pragma once

#include <string>
#include <vector>

namespace bireme::cpu {

/// The instruction sets that kernels are compiled for. The widest that the CPU has is chosen at run time.
enum class InstructionSet { sse4, avx2, avx512 };

const char* to_string(InstructionSet set);

/// Those that this CPU can run, narrowest first.
std::vector<InstructionSet> supported_instruction_sets();

/// Whether the CPU multiplies bf16 matrices with instructions of its own (AVX512-BF16 or AMX).
bool has_bf16_instructions();

/// While it lives, kernels made by make_cpu_backend() use this instruction set instead of the widest. For
/// tests: one at a time.
class [[nodiscard]] UseInstructionSet {
 public:
  explicit UseInstructionSet(InstructionSet set);
  ~UseInstructionSet();
  UseInstructionSet(const UseInstructionSet&) = delete;
  UseInstructionSet& operator=(const UseInstructionSet&) = delete;
};

}  // namespace bireme::cpu
