#include "core/cpu/onednn.h"

#include <xxhash.h>

#include <dnnl.hpp>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/base/error.h"

namespace bireme::cpu {

namespace {

dnnl::memory::data_type type_of(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

constexpr std::size_t kCacheLine = 64;  // a cache line, and the widest vector

/// The first aligned place of a buffer with kCacheLine bytes to spare.
void* aligned(std::byte* buffer) {
  void* place = buffer;
  std::size_t room = kCacheLine + 1;
  return std::align(kCacheLine, 1, place, room);
}

struct Key {
  Product product;
  bool packed;
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    const Product& p = key.product;
    const std::int64_t fields[] = {p.m, p.n, p.k,
                                   p.transpose_a | p.transpose_b << 1 | p.accumulate << 2 | p.bias << 3 |
                                       key.packed << 4 | static_cast<int>(p.input) << 8 |
                                       static_cast<int>(p.output) << 16};
    return XXH3_64bits(fields, sizeof fields);
  }
};

struct CachedProduct {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
};

}  // namespace

struct MatrixProducts::Packed {
  std::unique_ptr<std::byte[]> storage;
  dnnl::memory memory;
};

struct MatrixProducts::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  mutable std::mutex mutex;
  mutable std::unordered_map<Key, std::unique_ptr<CachedProduct>, KeyHash> entries;

  const CachedProduct& find(const Product& p, bool packed) const {
    const std::lock_guard lock(mutex);
    std::unique_ptr<CachedProduct>& entry = entries[{p, packed}];
    if (entry == nullptr) entry = make(p, packed);
    return *entry;
  }

  std::unique_ptr<CachedProduct> make(const Product& p, bool packed) const {
    using Tag = dnnl::memory::format_tag;
    const auto type = type_of(p.input);
    const dnnl::memory::desc a({p.m, p.k}, type, p.transpose_a ? Tag::ba : Tag::ab);
    const dnnl::memory::desc b({p.k, p.n}, type, packed ? Tag::any : p.transpose_b ? Tag::ba : Tag::ab);
    const dnnl::memory::desc c({p.m, p.n}, type_of(p.output), Tag::ab);
    dnnl::primitive_attr attributes;
    // The library's own scratchpad is sized on the thread that made the primitive, and missing on all others.
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0F);
      attributes.set_post_ops(sum);
    }
    const auto description =
        p.bias
            ? dnnl::matmul::desc(a, b, dnnl::memory::desc({1, p.n}, dnnl::memory::data_type::f32, Tag::ab), c)
            : dnnl::matmul::desc(a, b, c);
    dnnl::matmul::primitive_desc built(description, attributes, engine);
    return std::make_unique<CachedProduct>(CachedProduct{built, dnnl::matmul(built)});
  }

  void execute(const CachedProduct& entry, const void* a, const dnnl::memory& b, void* c,
               const float* bias) const {
    dnnl::stream stream(engine);
    std::unordered_map<int, dnnl::memory> arguments{
        {DNNL_ARG_SRC, {entry.description.src_desc(), engine, const_cast<void*>(a)}},
        {DNNL_ARG_WEIGHTS, b},
        {DNNL_ARG_DST, {entry.description.dst_desc(), engine, c}}};
    if (bias != nullptr) {
      const dnnl::memory::desc shape{{1, entry.description.dst_desc().dims()[1]},
                                     dnnl::memory::data_type::f32,
                                     dnnl::memory::format_tag::ab};
      arguments.insert({DNNL_ARG_BIAS, dnnl::memory(shape, engine, const_cast<float*>(bias))});
    }
    const auto scratch = entry.description.scratchpad_desc();
    arguments.insert({DNNL_ARG_SCRATCHPAD, dnnl::memory(scratch, engine, scratchpad(scratch.get_size()))});
    entry.primitive.execute(stream, arguments);
    stream.wait();
  }

  /// Working memory of the calling thread, kept from product to product.
  static void* scratchpad(std::size_t bytes) {
    static thread_local std::vector<std::byte> memory;
    if (memory.size() < bytes + kCacheLine) memory.resize(bytes + kCacheLine);
    return aligned(memory.data());
  }
};

MatrixProducts::MatrixProducts() : state_(std::make_unique<State>()) {}
MatrixProducts::~MatrixProducts() = default;

void MatrixProducts::run(const Product& product, const void* a, const void* b, void* c,
                         const float* bias) const {
  if (product.m == 0 || product.n == 0) return;
  const CachedProduct& entry = state_->find(product, false);
  state_->execute(entry, a, {entry.description.weights_desc(), state_->engine, const_cast<void*>(b)}, c,
                  bias);
}

std::shared_ptr<const MatrixProducts::Packed> MatrixProducts::pack(const Product& product,
                                                                   const void* b) const {
  using Tag = dnnl::memory::format_tag;
  const CachedProduct& entry = state_->find(product, true);
  auto packed = std::make_shared<Packed>();
  const auto description = entry.description.weights_desc();
  packed->storage = std::make_unique_for_overwrite<std::byte[]>(description.get_size() + kCacheLine);
  packed->memory = {description, state_->engine, aligned(packed->storage.get())};
  dnnl::memory plain(
      {{product.k, product.n}, type_of(product.input), product.transpose_b ? Tag::ba : Tag::ab},
      state_->engine, const_cast<void*>(b));
  dnnl::stream stream(state_->engine);
  dnnl::reorder(plain, packed->memory).execute(stream, plain, packed->memory);
  stream.wait();
  return packed;
}

void MatrixProducts::run(const Product& product, const void* a, const Packed& b, void* c,
                         const float* bias) const {
  if (product.m == 0 || product.n == 0) return;
  state_->execute(state_->find(product, true), a, b.memory, c, bias);
}

}  // namespace bireme::cpu
