#include "core/cuda/cublaslt.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/base/error.h"

namespace bireme::cuda {

namespace {

constexpr std::size_t kMostWorkspace = std::size_t{32} << 20;  // what NVIDIA recommends for sm_90

void check(cublasStatus_t status, const char* attempt) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ErrorKind::other,
              fmt::format("could not {}: cuBLASLt status {}", attempt, static_cast<int>(status)), "GPU",
              "check that the CUDA libraries belong to one version; CUBLASLT_LOG_LEVEL=2 tells more");
}

struct DescriptionTraits {
  using Handle = cublasLtMatmulDesc_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { cublasLtMatmulDescDestroy(handle); }
};
struct LayoutTraits {
  using Handle = cublasLtMatrixLayout_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { cublasLtMatrixLayoutDestroy(handle); }
};
struct PreferenceTraits {
  using Handle = cublasLtMatmulPreference_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { cublasLtMatmulPreferenceDestroy(handle); }
};

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::bf16: return CUDA_R_16BF;
    case DType::f64: return CUDA_R_64F;
    default: return CUDA_R_32F;
  }
}

Owned<LayoutTraits> make_layout(DType type, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, cuda_type(type), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), rows),
        "describe a matrix");
  return Owned<LayoutTraits>(layout);
}

template <class T>
void set(const Owned<DescriptionTraits>& description, cublasLtMatmulDescAttributes_t what, const T& value) {
  check(
      cublasLtMatmulDescSetAttribute(description.get(), what, static_cast<const void*>(&value), sizeof value),
      "describe a matrix product");
}

/// The largest power of two, up to 256, that divides the address.
int alignment_of(const void* address) {
  return 1 << std::min(8, std::countr_zero(reinterpret_cast<std::uintptr_t>(address)));
}

}  // namespace

MatrixProducts::MatrixProducts(DeviceMemory& memory) : memory_(memory) {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "start cuBLASLt");
  handle_ = Owned<CublasLtTraits>(handle);
}

// cuBLASLt counts column by column. Read so, our matrices are their own transposes, and Cᵀ = op(B)ᵀ · op(A)ᵀ:
// B is its first factor, and the bias belongs to the rows of its result.
void MatrixProducts::run(const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  const bool is_double = p.input == DType::f64;
  cublasLtMatmulDesc_t raw = nullptr;
  check(cublasLtMatmulDescCreate(&raw, is_double ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                 is_double ? CUDA_R_64F : CUDA_R_32F),
        "describe a matrix product");
  const Owned<DescriptionTraits> description(raw);
  set(description, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(description, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias != nullptr) {
    set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  }
  const auto b = p.transpose_b ? make_layout(p.input, p.k, p.n) : make_layout(p.input, p.n, p.k);
  const auto a = p.transpose_a ? make_layout(p.input, p.m, p.k) : make_layout(p.input, p.k, p.m);
  const auto c = make_layout(p.output, p.n, p.m);

  const int alignment = std::min({alignment_of(p.a), alignment_of(p.b), alignment_of(p.c)});
  const Key key{p.m, p.n, p.k, p.transpose_a, p.transpose_b, p.bias != nullptr, p.input, p.output, alignment};
  auto found = choices_.find(key);
  if (found == choices_.end()) {
    cublasLtMatmulPreference_t raw_preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&raw_preference), "choose an algorithm");
    const Owned<PreferenceTraits> preference(raw_preference);
    const auto require = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference.get(), what, &value, sizeof value),
            "choose an algorithm");
    };
    require(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
    const auto bytes = static_cast<std::uint32_t>(alignment);
    require(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, bytes);
    require(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, bytes);
    require(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, bytes);
    require(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, bytes);
    cublasLtMatmulHeuristicResult_t proposal{};
    int proposals = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), description.get(), b.get(), a.get(), c.get(), c.get(),
                                         preference.get(), 1, &proposal, &proposals),
          "choose an algorithm for a matrix product");
    if (proposals == 0) check(CUBLAS_STATUS_NOT_SUPPORTED, "find an algorithm for a matrix product");
    found = choices_.emplace(key, Choice{proposal.algo, proposal.workspaceSize}).first;
  }
  const Choice& choice = found->second;
  Tensor workspace;
  if (choice.workspace > 0)
    workspace = Tensor(memory_, {static_cast<std::int64_t>(choice.workspace)}, DType::u8);
  const float one = 1, add = p.accumulate ? 1 : 0;
  const double wide_one = 1, wide_add = p.accumulate ? 1 : 0;
  const void* alpha = is_double ? static_cast<const void*>(&wide_one) : &one;
  const void* beta = is_double ? static_cast<const void*>(&wide_add) : &add;
  check(cublasLtMatmul(handle_.get(), description.get(), alpha, p.b, b.get(), p.a, a.get(), beta, p.c,
                       c.get(), p.c, c.get(), &choice.algorithm, workspace ? workspace.raw() : nullptr,
                       choice.workspace, memory_.stream()),
        "multiply matrices");
}

}  // namespace bireme::cuda
