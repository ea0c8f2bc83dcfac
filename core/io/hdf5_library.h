#pragma once

#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/base/owned.h"
#include "core/tensor/types.h"

// What the reader and the writer share; the only header that shows the C library.
namespace bireme::hdf5 {

template <herr_t (*close_function)(hid_t)>
struct HandleTraits {
  using Handle = hid_t;
  static Handle null() noexcept { return H5I_INVALID_HID; }
  static void close(Handle handle) noexcept { close_function(handle); }
};
using File = Owned<HandleTraits<H5Fclose>>;
using Object = Owned<HandleTraits<H5Oclose>>;  // a group or a dataset
using Properties = Owned<HandleTraits<H5Pclose>>;
using Space = Owned<HandleTraits<H5Sclose>>;
using Type = Owned<HandleTraits<H5Tclose>>;
using Attribute = Owned<HandleTraits<H5Aclose>>;

/// Held around every use of the library, closing of handles included: Debian's build is not thread-safe. The
/// first one also sets the library up: no error printer, no plugins, no clean-up at exit (which crashes after
/// a full disk).
class LibraryLock {
 public:
  LibraryLock();

 private:
  std::scoped_lock<std::mutex> lock_;
};

/// What the library last complained about: its innermost and its outermost line.
std::string library_message();

/// Turns failed calls on one file into errors of one kind.
struct Checker {
  ErrorKind kind;
  std::string file;
  std::string remedy;

  [[noreturn]] void fail(const std::string& what) const { throw Error(kind, what, file, remedy); }
  /// The call's result, when that is not negative.
  template <class Result>
  Result operator()(Result result, std::string_view attempt) const {
    if (result < 0) fail("cannot " + std::string(attempt) + " (" + library_message() + ")");
    return result;
  }
};

/// The library's constant for a type in this machine's memory.
hid_t memory_type(DType type);

}  // namespace bireme::hdf5
