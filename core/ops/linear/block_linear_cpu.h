#pragma once

#include "core/ops/linear/linear_kernels.h"

namespace bireme::cpu {

void block_linear(const BlockLinearForward& a);
void block_linear(const BlockLinearBackward& a, Memory& memory);
void gate_products(const GateProductsForward& a);
void gate_products(const GateProductsBackward& a, Memory& memory);
void cap_gates(const CapGatesForward& a);
void cap_gates(const CapGatesBackward& a, Memory& memory);

}  // namespace bireme::cpu
