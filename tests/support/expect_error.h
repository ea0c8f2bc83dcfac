#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"

namespace bireme::test {

/// The message of the Error of this kind that `body` must throw.
template <class Body>
std::string error_of(ErrorKind kind, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return {};
}

/// True when the message holds every part; prints the message otherwise.
inline testing::AssertionResult mentions(const std::string& message,
                                         std::initializer_list<std::string> parts) {
  for (const std::string& part : parts)
    if (message.find(part) == std::string::npos)
      return testing::AssertionFailure() << "no `" << part << "` in: " << message;
  return testing::AssertionSuccess();
}

}  // namespace bireme::test
