#pragma once

#include "core/ops/convolution/convolution_kernels.h"

namespace bireme::cpu {

void causal_convolution(const CausalConvolutionForward& a);
void causal_convolution(const CausalConvolutionBackward& a, Memory& memory);

}  // namespace bireme::cpu
