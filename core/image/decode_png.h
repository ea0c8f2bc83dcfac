#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/image/picture.h"

namespace bireme {

/// The PNG half of PictureDecoder: 8 bits, grey or RGB, without alpha.
/// @throws Error (data) naming `name` for a damaged, truncated or oversized picture
Picture decode_png(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace bireme
