#pragma once

#include <optional>

#include "core/base/error.h"
#include "distributed/communicator.h"

namespace bireme {

struct AgreedError {
  Error error;
  int rank;  ///< the lowest that met it: the one to report it
};

/// At the end of a phase in which ranks may fail apart (configuration, opening the data): every rank learns
/// of the error of the lowest rank that has one, so that it is reported once and all leave in order with the
/// same code. Collective.
std::optional<AgreedError> agree_on_error(Communicator& communicator, const std::optional<Error>& own);

/// For an error that only this rank knows of, after it was reported: ends every rank of the job with the
/// error's code within seconds. Null: there is no communicator yet, and only this process ends.
[[noreturn]] void abort_all(Communicator* communicator, const Error& error);

/// False when another rank of this host has reported a fault before: all that wait for a lost rank notice it,
/// and one line about it is enough.
bool claim_report(const Communicator* communicator);

}  // namespace bireme
