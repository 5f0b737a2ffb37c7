// Run an ExecuTorch program on one thread: see frames.h. `run_pte FILE`
//
// A program names no tensors: they are numbered, and axes are declared by their upper bounds.
#include <executorch/extension/threadpool/threadpool.h>
#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "frames.h"

using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Method;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::TensorInfo;
using frames::Tensor;

static const char *METHOD = "forward";
static constexpr size_t ALIGNMENT = 64;

static const struct {
    ScalarType type;
    const char *name;
} DTYPES[] = {{ScalarType::Float, "float32"},
              {ScalarType::Int, "int32"},
              {ScalarType::Long, "int64"},
              {ScalarType::Half, "float16"}};

static std::string dtype_name(ScalarType type) {
    for (const auto &dtype : DTYPES)
        if (dtype.type == type) return dtype.name;
    return "scalar-type-" + std::to_string(static_cast<int>(type));
}

static ScalarType scalar_type(const std::string &name) {
    for (const auto &dtype : DTYPES)
        if (name == dtype.name) return dtype.type;
    throw std::runtime_error("ExecuTorch is given no " + name);
}

static void check(Error error, const char *what) {
    if (error == Error::Ok) return;
    char text[96];
    snprintf(text, sizeof text, "%s: error 0x%02x", what, static_cast<unsigned>(error));
    throw std::runtime_error(text);
}

template <class T>
static T checked(Result<T> result, const char *what) {
    check(result.error(), what);
    return std::move(result.get());
}

// The file, in memory for as long as the process lives.
class WholeFile final : public DataLoader {
   public:
    explicit WholeFile(const char *path) {
        std::ifstream file(path, std::ios::binary);
        if (!file) throw std::runtime_error("the file cannot be read");
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
        size_ = bytes.size();
        data_ = static_cast<char *>(std::aligned_alloc(ALIGNMENT, size_ + ALIGNMENT - size_ % ALIGNMENT));
        memcpy(data_, bytes.data(), size_);
    }
    Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo &) const override {
        if (offset + size > size_) return Error::InvalidArgument;
        return FreeableBuffer(data_ + offset, size, nullptr);
    }
    Result<size_t> size() const override { return size_; }

   private:
    size_t size_ = 0;
    char *data_ = nullptr;
};

// Memory that a method keeps, or needs during one call, of whatever size.
class HeapAllocator final : public MemoryAllocator {
   public:
    HeapAllocator() : MemoryAllocator(0, nullptr) {}
    ~HeapAllocator() override { reset(); }
    void *allocate(size_t size, size_t alignment) override {
        alignment = std::max(alignment, ALIGNMENT);
        blocks_.push_back(std::aligned_alloc(alignment, size + alignment - size % alignment));
        return blocks_.back();
    }
    void reset() override {
        for (void *block : blocks_) free(block);
        blocks_.clear();
    }

   private:
    std::vector<void *> blocks_;
};

class Session {
   public:
    explicit Session(const char *path)
        : file_(path),
          program_(checked(Program::load(&file_, Program::Verification::InternalConsistency),
                           "the program does not load")) {
        auto meta = checked(program_.method_meta(METHOD), "the program has no method forward");
        for (size_t k = 0; k < meta.num_memory_planned_buffers(); ++k) {
            const size_t size = checked(meta.memory_planned_buffer_size(k), "a planned buffer");
            planned_.push_back({static_cast<uint8_t *>(kept_.allocate(size, ALIGNMENT)), size});
        }
        planned_allocator_ = std::make_unique<HierarchicalAllocator>(
            Span<Span<uint8_t>>(planned_.data(), planned_.size()));
        memory_ = std::make_unique<MemoryManager>(&kept_, planned_allocator_.get(), &temporary_);
        method_ = std::make_unique<Method>(
            checked(program_.load_method(METHOD, memory_.get()), "the method does not load"));
        for (size_t k = 0; k < meta.num_inputs(); ++k)
            inputs_.push_back(declared("input_", k, checked(meta.input_tensor_meta(k), "an input")));
        for (size_t k = 0; k < meta.num_outputs(); ++k)
            outputs_.push_back(
                declared("output_", k, checked(meta.output_tensor_meta(k), "an output")));
    }

    void declare() const {
        frames::write("inputs", inputs_);
        frames::write("outputs", outputs_);
    }

    std::vector<Tensor> run(std::vector<Tensor> &inputs) {
        if (inputs.size() != inputs_.size()) throw std::runtime_error("wrong number of inputs");
        std::vector<Described> described;
        for (auto &input : inputs) described.emplace_back(input);
        for (size_t k = 0; k < described.size(); ++k)
            check(method_->set_input(EValue(executorch::aten::Tensor(&described[k].tensor)), k),
                  ("input " + std::to_string(k) + " is refused").c_str());
        frames::mark(0);
        const Error error = method_->execute();
        frames::mark(1);
        temporary_.reset();
        check(error, "the method failed");
        std::vector<Tensor> outputs;
        for (size_t k = 0; k < outputs_.size(); ++k) outputs.push_back(copied(k));
        return outputs;
    }

   private:
    // What ExecuTorch needs of a tensor; the bytes stay where they are.
    struct Described {
        explicit Described(Tensor &tensor_)
            : axes(as_sizes(tensor_)),
              order(ordered(axes.size())),
              strides(contiguous(axes)),
              tensor(scalar_type(tensor_.dtype), axes.size(), axes.data(), tensor_.bytes.data(),
                     order.data(), strides.data()) {}
        std::vector<TensorImpl::SizesType> axes;
        std::vector<TensorImpl::DimOrderType> order;
        std::vector<TensorImpl::StridesType> strides;
        TensorImpl tensor;

        static std::vector<TensorImpl::SizesType> as_sizes(const Tensor &tensor) {
            const auto sizes = frames::sizes(tensor);
            return {sizes.begin(), sizes.end()};
        }
        static std::vector<TensorImpl::DimOrderType> ordered(size_t rank) {
            std::vector<TensorImpl::DimOrderType> found;
            for (size_t k = 0; k < rank; ++k) found.push_back(static_cast<uint8_t>(k));
            return found;
        }
        static std::vector<TensorImpl::StridesType> contiguous(
            const std::vector<TensorImpl::SizesType> &axes) {
            std::vector<TensorImpl::StridesType> found(axes.size(), 1);
            for (size_t k = axes.size(); k-- > 1;) found[k - 1] = found[k] * axes[k];
            return found;
        }
    };

    static Tensor declared(const char *prefix, size_t index, const TensorInfo &info) {
        Tensor tensor{prefix + std::to_string(index), dtype_name(info.scalar_type()), {}, {}};
        for (const auto size : info.sizes()) tensor.axes.push_back(std::to_string(size));
        return tensor;
    }

    Tensor copied(size_t index) const {
        const auto &value = method_->get_output(index).toTensor();
        Tensor tensor{outputs_[index].name, dtype_name(value.scalar_type()), {}, {}};
        for (const auto size : value.sizes()) tensor.axes.push_back(std::to_string(size));
        const char *bytes = static_cast<const char *>(value.const_data_ptr());
        tensor.bytes.assign(bytes, bytes + value.nbytes());
        return tensor;
    }

    WholeFile file_;
    Program program_;
    HeapAllocator kept_, temporary_;
    std::vector<Span<uint8_t>> planned_;
    std::unique_ptr<HierarchicalAllocator> planned_allocator_;
    std::unique_ptr<MemoryManager> memory_;
    std::unique_ptr<Method> method_;
    std::vector<Tensor> inputs_, outputs_;
};

int main(int, char **arguments) {
    executorch::runtime::runtime_init();
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(1);
    try {
        Session session(arguments[1]);
        session.declare();
        frames::serve([&](std::vector<Tensor> &inputs) { return session.run(inputs); });
        return 0;
    } catch (const std::exception &error) {
        frames::write_failure(error.what());
        return 1;
    }
}
