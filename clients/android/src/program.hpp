// One .pte on ExecuTorch: named inputs in, arrays out.
#pragma once

#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.hpp"

// As in ExecuTorch's threadpool.h, which wants a header that its wheel lacks.
namespace executorch::extension::threadpool {
class ThreadPool { public: bool _unsafe_reset_threadpool(uint32_t threads); size_t get_thread_count() const; };
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;

inline void require(et::Error error, const std::string& what) {
  if (error != et::Error::Ok) throw std::runtime_error(what + ": ExecuTorch error " + std::to_string(int(error)));
}

class Program {
 public:
  // Of a step in two methods, one of them; otherwise the one that the options name.
  Program(const std::string& name, const std::string& bytes, const Json& file, const Json& options, const std::string& part)
      : file(file), io_(part.empty() ? file : file["methods"][part]), name_(name), loader_(bytes) {
    et::runtime_init();
    // Before the first program: each keeps a pointer to the pool.
    auto* pool = executorch::extension::threadpool::get_threadpool();
    const uint32_t threads = options["threads"].integer();
    if (pool->get_thread_count() != threads) pool->_unsafe_reset_threadpool(threads);
    auto program = et::Program::load(&loader_, et::Program::Verification::InternalConsistency);
    require(program.error(), name_);
    program_ = std::make_unique<et::Program>(std::move(*program));
    const std::string& method = part.empty() ? options["method"].text : part;
    auto meta = program_->method_meta(method.c_str());
    require(meta.error(), name_ + ": method " + method);
    for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i)
      planned_.emplace_back((meta->memory_planned_buffer_size(i).get() + 15) / 16);
    for (auto& buffer : planned_) spans_.push_back({reinterpret_cast<uint8_t*>(buffer.data()), buffer.size() * 16});
    planned_memory_ = std::make_unique<et::HierarchicalAllocator>(et::Span<et::Span<uint8_t>>(spans_.data(), spans_.size()));
    memory_ = std::make_unique<et::MemoryManager>(&method_memory_, planned_memory_.get(), &temp_memory_);
    auto loaded = program_->load_method(method.c_str(), memory_.get());
    require(loaded.error(), name_ + ": method " + method);
    method_ = std::make_unique<et::Method>(std::move(*loaded));
  }

  // Run once. Inputs are given as numbers, in the order and converted to the dtype of decode.json.
  void run(const std::vector<std::vector<float>>& inputs, const std::vector<std::vector<int>>& shapes) {
    std::vector<std::vector<int64_t>> wide(inputs.size());
    std::vector<std::vector<int32_t>> narrow(inputs.size());
    std::vector<std::unique_ptr<TensorImpl>> tensors;
    std::vector<std::vector<uint8_t>> orders;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::string& dtype = io_["inputs"][i]["dtype"].text;
      void* data = const_cast<float*>(inputs[i].data());
      ScalarType type = ScalarType::Float;
      if (dtype == "int64") data = (wide[i] = {inputs[i].begin(), inputs[i].end()}).data(), type = ScalarType::Long;
      if (dtype == "int32") data = (narrow[i] = {inputs[i].begin(), inputs[i].end()}).data(), type = ScalarType::Int;
      orders.emplace_back();
      for (size_t axis = 0; axis < shapes[i].size(); ++axis) orders.back().push_back(axis);
      auto* sizes = const_cast<int*>(shapes[i].data());
      tensors.push_back(std::make_unique<TensorImpl>(type, shapes[i].size(), sizes, data, orders.back().data()));
      require(method_->set_input(et::EValue(executorch::aten::Tensor(tensors.back().get())), i),
              name_ + ": input " + io_["inputs"][i]["name"].text);
    }
    require(method_->execute(), name_ + ": execute");
  }

  executorch::aten::Tensor output(size_t place) const { return method_->get_output(place).toTensor(); }
  const float* floats(size_t place) const { return output(place).const_data_ptr<float>(); }
  std::vector<float> all(size_t place) const { return {floats(place), floats(place) + output(place).numel()}; }

  const Json& file;

 private:
  struct alignas(16) Block { uint8_t bytes[16]; };
  class Loader final : public et::DataLoader {
   public:
    explicit Loader(const std::string& bytes) : blocks_((bytes.size() + 15) / 16), size_(bytes.size()) {
      std::memcpy(blocks_.data(), bytes.data(), size_);
    }
    et::Result<et::FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
      return et::FreeableBuffer(reinterpret_cast<const uint8_t*>(blocks_.data()) + offset, size, nullptr);
    }
    et::Result<size_t> size() const override { return size_; }

   private:
    std::vector<Block> blocks_;
    size_t size_;
  };
  const Json& io_;
  std::string name_;
  Loader loader_;
  std::vector<Block> method_pool_{1 << 19}, temp_pool_{1 << 19};  // 8 MB each
  et::MemoryAllocator method_memory_{uint32_t(method_pool_.size() * 16), method_pool_[0].bytes};
  et::MemoryAllocator temp_memory_{uint32_t(temp_pool_.size() * 16), temp_pool_[0].bytes};
  std::vector<std::vector<Block>> planned_;
  std::vector<et::Span<uint8_t>> spans_;
  std::unique_ptr<et::Program> program_;
  std::unique_ptr<et::HierarchicalAllocator> planned_memory_;
  std::unique_ptr<et::MemoryManager> memory_;
  std::unique_ptr<et::Method> method_;
};
