#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/image/decode.h"

namespace bireme {

/// Pictures to prepare, in the order of their records. The methods may be called from any number of threads.
class PictureInput {
 public:
  virtual ~PictureInput() = default;

  virtual std::int64_t size() const = 0;
  /// For messages: a path, `archive.tar: member`, or `file: picture 17`.
  virtual std::string name(std::int64_t i) const = 0;
  /// The picture as it is stored, with its label. A file's bytes are not looked at: codec and size are not
  /// set.
  /// @throws Error (data)
  virtual EncodedPicture load(std::int64_t i) const = 0;

  const std::vector<std::string>& classes() const { return classes_; }
  /// Files that are not pictures by their name.
  std::int64_t ignored() const { return ignored_; }

 protected:
  std::vector<std::string> classes_;
  std::int64_t ignored_ = 0;
};

/// Folders of .jpg, .jpeg and .png files, .tar archives of such folders, or one IDX pair (images and labels
/// in any order). Pictures come in byte order of their paths. Folders that lead to all pictures, such as
/// `train/`, are passed over; the next one on the way to a picture is its class. Pictures that lie beside the
/// class folders have no class. Labels follow the byte order of the class names.
/// @throws Error (data) when an input is missing, is none of these, or holds no picture
std::unique_ptr<PictureInput> open_picture_input(const std::vector<std::filesystem::path>& inputs);

}  // namespace bireme
