#include "core/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <unordered_map>

#include "core/base/error.h"
#include "core/cuda/devices.h"

namespace fe = cudnn_frontend;

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // in which the frontend looks cuDNN's functions up
}  // namespace cudnn_frontend

namespace bireme::cuda {

namespace {

/// cuDNN is loaded when it is first asked for, so that the program starts where it is missing.
bool load_cudnn() {
  static const bool is_there = [] {
    // The frontend calls the CUDA runtime by itself too, and takes the first that it finds unless told.
    const std::string runtime = fmt::format("libcudart.so.{}", CUDART_VERSION / 1000);
    setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.c_str(), 0);  // NOLINT(concurrency-mt-unsafe): once
    if (dlopen(runtime.c_str(), RTLD_NOW) == nullptr) return false;
    fe::cudnn_dlhandle = dlopen(fmt::format("libcudnn.so.{}", CUDNN_MAJOR).c_str(), RTLD_NOW | RTLD_GLOBAL);
    return fe::cudnn_dlhandle != nullptr;
  }();
  return is_there;
}

[[noreturn]] void refuse(const char* attempt, const std::string& why) {
  throw Error(ErrorKind::other, fmt::format("could not {}: cuDNN: {}", attempt, why), "GPU",
              "CUDNN_LOGLEVEL_DBG=1 CUDNN_LOGDEST_DBG=stderr tells more");
}
void check(cudnnStatus_t status, const char* attempt) {
  if (status != CUDNN_STATUS_SUCCESS) refuse(attempt, fe::detail::get_error_string(status));
}
void check(fe::error_t status, const char* attempt) {
  if (status.is_bad()) refuse(attempt, status.get_message());
}

struct CudnnTraits {
  using Handle = cudnnHandle_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { fe::detail::destroy_handle(handle); }
};

/// What the frontend knows tensors by.
enum Name : std::int64_t { kQ = 1, kK, kV, kY, kLogSum, kDy, kDq, kDk, kDv };

using Graph = fe::graph::Graph;
using Attributes = fe::graph::Tensor_attributes;

/// [sequences, heads, length, dimension] within rows of `columns` entries, as strides.
struct Heads {
  std::vector<std::int64_t> sizes, strides;
};
Heads heads_in_rows(const PackedAttention& s, std::int64_t heads, std::int64_t columns) {
  return {{s.sequences, heads, s.length, s.dimension}, {s.length * columns, s.dimension, columns, 1}};
}
Heads packed_heads(const PackedAttention& s, std::int64_t heads) {
  return heads_in_rows(s, heads, (s.queries + 2 * s.keys) * s.dimension);
}
Heads result_heads(const PackedAttention& s) { return heads_in_rows(s, s.queries, s.queries * s.dimension); }
/// cuDNN before 9.26 reads statistics in this layout alone.
Heads statistics(const PackedAttention& s) {
  return {{s.sequences, s.queries, s.length, 1}, {s.queries * s.length, s.length, 1, 1}};
}

std::shared_ptr<Attributes> input(Graph& graph, Name name, const Heads& heads) {
  return graph.tensor(Attributes().set_uid(name).set_dim(heads.sizes).set_stride(heads.strides));
}
void set_output(const std::shared_ptr<Attributes>& tensor, Name name, const Heads& heads) {
  tensor->set_output(true).set_uid(name).set_dim(heads.sizes).set_stride(heads.strides);
}

std::unique_ptr<Graph> empty_graph() {
  auto graph = std::make_unique<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

/// Scale and mask of either direction.
template <class Options>
Options options_of(const PackedAttention& s) {
  Options options;
  options.set_attn_scale(1 / std::sqrt(static_cast<float>(s.dimension)));
  if (s.is_causal)
    options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
  return options;
}

std::unique_ptr<Graph> forward_graph(const PackedAttention& s) {
  auto graph = empty_graph();
  const auto options = options_of<fe::graph::SDPA_attributes>(s).set_generate_stats(true);
  const auto [y, log_sum] =
      graph->sdpa(input(*graph, kQ, packed_heads(s, s.queries)), input(*graph, kK, packed_heads(s, s.keys)),
                  input(*graph, kV, packed_heads(s, s.keys)), options);
  set_output(y, kY, result_heads(s));
  set_output(log_sum, kLogSum, statistics(s));
  log_sum->set_data_type(fe::DataType_t::FLOAT);
  return graph;
}

std::unique_ptr<Graph> backward_graph(const PackedAttention& s) {
  auto graph = empty_graph();
  const auto options = options_of<fe::graph::SDPA_backward_attributes>(s).set_deterministic_algorithm(true);
  const auto log_sum = input(*graph, kLogSum, statistics(s));
  log_sum->set_data_type(fe::DataType_t::FLOAT);
  const auto [dq, dk, dv] = graph->sdpa_backward(
      input(*graph, kQ, packed_heads(s, s.queries)), input(*graph, kK, packed_heads(s, s.keys)),
      input(*graph, kV, packed_heads(s, s.keys)), input(*graph, kY, result_heads(s)),
      input(*graph, kDy, result_heads(s)), log_sum, options);
  set_output(dq, kDq, packed_heads(s, s.queries));
  set_output(dk, kDk, packed_heads(s, s.keys));
  set_output(dv, kDv, packed_heads(s, s.keys));
  return graph;
}

/// Whether the status says that there is no kernel, and not that something is broken.
bool lacks_kernel(fe::error_code_t code) {
  return code == fe::error_code_t::GRAPH_NOT_SUPPORTED || code == fe::error_code_t::HEURISTIC_QUERY_FAILED ||
         code == fe::error_code_t::GRAPH_EXECUTION_PLAN_CREATION_FAILED;
}

std::string readable(const PackedAttention& s) {
  return fmt::format("{} sequences of {}, {} + {} heads of {}{}", s.sequences, s.length, s.queries, s.keys,
                     s.dimension, s.is_causal ? ", causal" : "");
}

}  // namespace

struct CudnnAttention::Plans {
  Owned<CudnnTraits> handle;
  int architecture = 0;  // such as 90
  // Without a graph: cuDNN has no kernel.
  std::map<PackedAttention, std::unique_ptr<Graph>> forward, backward;

  Graph* find(std::map<PackedAttention, std::unique_ptr<Graph>>& plans, const PackedAttention& shape,
              std::unique_ptr<Graph> (*make)(const PackedAttention&)) const {
    const auto found = plans.find(shape);
    if (found != plans.end()) return found->second.get();
    std::unique_ptr<Graph> graph = make(shape);
    graph->set_sm_version(architecture);
    fe::error_t status = graph->build(handle.get(), {fe::HeurMode_t::A});
    if (status.is_bad()) {
      if (!lacks_kernel(status.get_code())) check(status, "plan attention");
      spdlog::debug("attention of {} takes an own kernel: cuDNN: {}", readable(shape), status.get_message());
      graph.reset();
    }
    return plans.emplace(shape, std::move(graph)).first->second.get();
  }

  void run(const Graph& graph, std::unordered_map<std::int64_t, void*> tensors, DeviceMemory& memory,
           const char* attempt) const {
    std::int64_t bytes = 0;
    check(graph.get_workspace_size(bytes), "ask for the size of a workspace");
    Tensor workspace;
    if (bytes > 0) workspace = Tensor(memory, {bytes}, DType::u8);
    check(graph.execute(handle.get(), tensors, workspace ? workspace.raw() : nullptr), attempt);
  }
};

CudnnAttention::CudnnAttention(DeviceMemory& memory) : memory_(memory) {
  if (!load_cudnn()) return;
  plans_ = std::make_unique<Plans>();
  cudnnHandle_t handle = nullptr;
  check(fe::detail::create_handle(&handle), "start cuDNN");
  plans_->handle = Owned<CudnnTraits>(handle);
  check(fe::detail::set_stream(handle, memory.stream()), "give cuDNN its stream");
  int major = 0, minor = 0;
  const int device = memory.device().index;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "ask for the GPU's kind");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "ask for the GPU's kind");
  plans_->architecture = 10 * major + minor;
}
CudnnAttention::~CudnnAttention() = default;

bool CudnnAttention::supports(const PackedAttention& shape, bool trains) {
  return plans_ != nullptr && plans_->find(plans_->forward, shape, forward_graph) != nullptr &&
         (!trains || plans_->find(plans_->backward, shape, backward_graph) != nullptr);
}

namespace {

/// Where keys begin in a row, and values.
std::int64_t keys_at(const PackedAttention& s) { return s.queries * s.dimension; }
std::int64_t values_at(const PackedAttention& s) { return (s.queries + s.keys) * s.dimension; }

}  // namespace

void CudnnAttention::forward(const PackedAttention& shape, const bf16* qkv, bf16* y, float* log_sum) {
  Tensor unread;
  if (log_sum == nullptr) {
    unread = Tensor(memory_, {shape.sequences * shape.queries * shape.length}, DType::f32);
    log_sum = unread.data<float>();
  }
  auto* packed = const_cast<bf16*>(qkv);  // read only, but cuDNN takes all addresses alike
  plans_->run(*plans_->forward.at(shape),
              {{kQ, packed},
               {kK, packed + keys_at(shape)},
               {kV, packed + values_at(shape)},
               {kY, y},
               {kLogSum, log_sum}},
              memory_, "run attention");
}

void CudnnAttention::backward(const PackedAttention& shape, const Gradient& g) {
  auto* packed = const_cast<bf16*>(g.qkv);
  plans_->run(*plans_->backward.at(shape),
              {{kQ, packed},
               {kK, packed + keys_at(shape)},
               {kV, packed + values_at(shape)},
               {kY, const_cast<bf16*>(g.y)},
               {kDy, const_cast<bf16*>(g.dy)},
               {kLogSum, const_cast<float*>(g.log_sum)},
               {kDq, g.dqkv},
               {kDk, g.dqkv + keys_at(shape)},
               {kDv, g.dqkv + values_at(shape)}},
              memory_, "run the way back of attention");
}

CudnnReport find_cudnn() {
  if (!load_cudnn())
    return {
        .version = "",
        .explanation = fmt::format("libcudnn.so.{} or libcudart.so.{} is not found: attention on GPUs takes "
                                   "an own kernel (set LD_LIBRARY_PATH)",
                                   CUDNN_MAJOR, CUDART_VERSION / 1000)};
  const auto version = static_cast<int>(fe::detail::get_backend_version());
  return {.version = fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100),
          .explanation = "attention in bf16 on GPUs"};
}

}  // namespace bireme::cuda
