#include <cublasLt.h>

#include <cstring>
#include <vector>

#include "core/base/bf16.h"
#include "tests/cuda_on_cpu/host_blocks.h"
#include "tests/cuda_on_cpu/launches.h"
#include "tests/cuda_on_cpu/stream.h"

struct cublasLtContext {};
struct cublasLtMatmulDescription {
  cublasOperation_t operation_a = CUBLAS_OP_N, operation_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  bool is_double = false;
};
struct cublasLtLayout {
  cudaDataType_t type;
  std::int64_t rows, columns, leading;
};
struct cublasLtPreference {};

namespace {

/// Reads numbers of any of the three types.
struct Reader {
  const void* data;
  cudaDataType_t type;

  template <class L>
  L at(std::int64_t i) const {
    switch (type) {
      case CUDA_R_64F: return static_cast<L>(static_cast<const double*>(data)[i]);
      case CUDA_R_16BF: return static_cast<L>(bireme::to_float(static_cast<const bireme::bf16*>(data)[i]));
      default: return static_cast<L>(static_cast<const float*>(data)[i]);
    }
  }
};

void write(void* data, cudaDataType_t type, std::int64_t i, double value) {
  switch (type) {
    case CUDA_R_64F: static_cast<double*>(data)[i] = value; break;
    case CUDA_R_16BF: static_cast<bireme::bf16*>(data)[i] = bireme::to_bf16(static_cast<float>(value)); break;
    default: static_cast<float*>(data)[i] = static_cast<float>(value);
  }
}

/// D = op(A)·op(B) + beta·C + bias, sums in L. Both factors are laid out first so that the inner loop runs
/// along memory.
template <class L>
void multiply(const cublasLtMatmulDescription& p, Reader a, const cublasLtLayout& la, Reader b,
              const cublasLtLayout& lb, bool add, Reader c, const cublasLtLayout& lc, void* d) {
  const std::int64_t m = lc.rows, n = lc.columns, k = p.operation_a == CUBLAS_OP_T ? la.rows : la.columns;
  const bool ta = p.operation_a == CUBLAS_OP_T, tb = p.operation_b == CUBLAS_OP_T;
  std::vector<L> left(static_cast<std::size_t>(m * k)),
      right(static_cast<std::size_t>(k * n));  // [k, m], [n, k]
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t l = 0; l < k; ++l)
      left[static_cast<std::size_t>(l * m + i)] = a.at<L>(ta ? l + i * la.leading : i + l * la.leading);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t l = 0; l < k; ++l)
      right[static_cast<std::size_t>(j * k + l)] = b.at<L>(tb ? j + l * lb.leading : l + j * lb.leading);
  std::vector<L> column(static_cast<std::size_t>(m));
  for (std::int64_t j = 0; j < n; ++j) {
    std::fill(column.begin(), column.end(), L{0});
    for (std::int64_t l = 0; l < k; ++l) {
      const L factor = right[static_cast<std::size_t>(j * k + l)];
      const L* line = left.data() + l * m;
      for (std::int64_t i = 0; i < m; ++i) column[static_cast<std::size_t>(i)] += factor * line[i];
    }
    const Reader bias{p.bias, lc.type};
    for (std::int64_t i = 0; i < m; ++i) {
      L value = column[static_cast<std::size_t>(i)];
      if (add) value += c.at<L>(i + j * lc.leading);
      if (p.epilogue == CUBLASLT_EPILOGUE_BIAS) value += bias.at<L>(i);
      write(d, lc.type, i + j * lc.leading, value);
    }
  }
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t) {
  *description = new cublasLtMatmulDescription{.is_double = compute == CUBLAS_COMPUTE_64F};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t what, const void* value,
                                              std::size_t bytes) {
  const auto set = [&](auto& member) {
    if (bytes != sizeof member) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(static_cast<void*>(&member), value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(description->operation_a);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(description->operation_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(description->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(description->bias);
  }
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
  *layout =
      new cublasLtLayout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtPreference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t, const void*,
                                                    std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

/// Combinations of types and epilogues that cuBLASLt does not have are refused here too.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  const bool is_double = a->type == CUDA_R_64F;
  if (a->type != b->type || c->type != d->type || description->is_double != is_double)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (is_double && (c->type != CUDA_R_64F || description->epilogue != CUBLASLT_EPILOGUE_DEFAULT))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (a->type == CUDA_R_32F && c->type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *found = 1;
  results[0] = {};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void*, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t*, void*, std::size_t,
                              cudaStream_t stream) {
  const bool add =
      description->is_double ? *static_cast<const double*>(beta) != 0 : *static_cast<const float*>(beta) != 0;
  const auto& [type_a, rows_a, columns_a, leading_a] = *a_layout;
  const auto& [type_c, rows_c, columns_c, leading_c] = *c_layout;
  const cuda_on_cpu::What what{
      "product", cuda_on_cpu::hash(description->operation_a, description->operation_b, description->epilogue,
                                   type_a, rows_a, columns_a, type_c, rows_c, columns_c)};
  cuda_on_cpu::enqueue(stream, what, [=, p = *description, la = *a_layout, lb = *b_layout, lc = *c_layout] {
    ++cuda_on_cpu::launches().products;
    const cuda_on_cpu::ClosedHost closed;
    const Reader ra{a, la.type}, rb{b, lb.type}, rc{c, lc.type};
    if (p.is_double) {
      multiply<double>(p, ra, la, rb, lb, add, rc, lc, d);
    } else {
      multiply<float>(p, ra, la, rb, lb, add, rc, lc, d);
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}
