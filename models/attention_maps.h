#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace bireme {

/// What the class token looks at: its row of the last block's attention without its own column (Caron et al.
/// 2021, figure 1).
/// @param attention  [n, H, N + 1, N + 1] fp32, of VisionTransformer::attention
/// @return           [n, H, N] fp32, patches row by row
Tensor class_attention(Memory& memory, const Tensor& attention);

/// For each map the fewest, largest patches that hold the share `kept` of its mass: sorted upwards, those
/// whose cumulated share exceeds 1 - kept; of equal patches the later ones.
/// @param maps  [..., N] fp32, not negative
/// @return      the same shape, u8, 1 where a patch is kept
/// @throws Error (usage) unless 0 < kept ≤ 1
Tensor attention_masks(Memory& memory, const Tensor& maps, double kept);

/// Each patch repeated over its p × p pixels. @param maps  [..., rows · columns] fp32 or u8  @return [...,
/// rows · p, columns · p]
Tensor repeat_patches(Memory& memory, const Tensor& maps, std::int64_t rows, std::int64_t columns, int patch);

}  // namespace bireme
