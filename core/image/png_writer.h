#pragma once

#include <filesystem>

#include "core/image/picture.h"

namespace bireme {

/// Writes an 8-bit grey or RGB picture as PNG; the file appears whole or not at all.
/// @throws Error (other) for a picture that is empty, or of another number of channels; (checkpoint) when the
/// file cannot
///         be written
void write_png(const std::filesystem::path& path, const Picture& picture);

}  // namespace bireme
