#pragma once

#include <memory>

#include "core/data/batch.h"
#include "models/language_model.h"

namespace bireme {

/// The linear head of a value function, on hidden vectors.
struct ValueHead {
  Parameter* weight = nullptr;  ///< [1, D]; null: the value is the bias alone
  Parameter* bias = nullptr;    ///< [1]

  /// Registers NAME.weight and NAME.bias, zero at first: V = 0, the mean of normalised rewards.
  static ValueHead add(ParameterSet& parameters, const std::string& name, std::int64_t channels,
                       double learning_rate_scale = 1);
};

/// V = x·w + b of each row, and b alone for what has no row.
/// @param x  [M, D], compute type; a Var without a tensor: M = 0
/// @return   [M + 1] fp64; the last is b
Var head_values(Tape& tape, const Var& x, const ValueHead& head);

/// The value V(x) of a prompt, read where it ends, so that nothing of an answer can be seen: a network of its
/// own, a head on the policy's hidden vectors, or one number for all prompts.
class ValueFunction {
 public:
  enum class Kind { separate, shared, constant };

  /// @param network   of a separate one, otherwise null; outlives this, as the head's parameters do
  /// @param detached  of a shared one: no gradient flows on into the policy
  ValueFunction(Kind kind, const ValueHead& head, const LanguageModel* network, bool detached);

  Kind kind() const { return kind_; }
  /// The values of a pass, and which of them is that of each answer.
  struct Values {
    Var values;  ///< fp64
    std::vector<std::size_t> of_answer;
  };
  /// @param policy_hidden  [R, D], what a shared head reads
  Values values(Tape& tape, const AnswerRows& rows, const Var& policy_hidden,
                const LanguageForward& how) const;

 private:
  Kind kind_;
  ValueHead head_;
  const LanguageModel* network_;
  bool detached_;
};

}  // namespace bireme
