#include "core/io/hdf5_library.h"

#include <vector>

namespace bireme::hdf5 {

namespace {

// The library itself is one global state, so its lock is one too.
std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

herr_t collect(unsigned, const H5E_error2_t* error, void* lines) {
  if (error->desc != nullptr && *error->desc != '\0')
    static_cast<std::vector<std::string>*>(lines)->emplace_back(error->desc);
  return 0;
}

}  // namespace

LibraryLock::LibraryLock() : lock_(library_mutex()) {
  static const bool set_up = [] {
    H5dont_atexit();  // every handle has an owner; the handler's own clean-up crashes after a failed write
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);
    return true;
  }();
  static_cast<void>(set_up);
}

std::string library_message() {
  std::vector<std::string> lines;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &lines);
  H5Eclear2(H5E_DEFAULT);
  if (lines.empty()) return "the HDF5 library gave no reason";
  return lines.size() == 1 ? lines.front() : lines.front() + "; " + lines.back();
}

hid_t memory_type(DType type) {
  switch (type) {
    case DType::f32: return H5T_NATIVE_FLOAT;
    case DType::f64: return H5T_NATIVE_DOUBLE;
    case DType::i32: return H5T_NATIVE_INT32;
    case DType::i64: return H5T_NATIVE_INT64;
    case DType::u8: return H5T_NATIVE_UINT8;
    case DType::bf16: break;
  }
  throw Error(ErrorKind::other, "HDF5 files do not hold bf16", "", "convert the tensor to fp32 first");
}

}  // namespace bireme::hdf5
