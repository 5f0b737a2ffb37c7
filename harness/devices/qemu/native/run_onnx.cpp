// Run an ONNX file on ONNX Runtime, on one thread: see frames.h. `run_onnx FILE`
#include "frames.h"
#include "ort_api.h"

using frames::Tensor;

static const struct {
    int code;
    const char *name;
} DTYPES[] = {{1, "float32"}, {6, "int32"}, {7, "int64"}, {10, "float16"}};

static std::string dtype_name(int code) {
    for (const auto &dtype : DTYPES)
        if (dtype.code == code) return dtype.name;
    return "element-type-" + std::to_string(code);
}

static int dtype_code(const std::string &name) {
    for (const auto &dtype : DTYPES)
        if (name == dtype.name) return dtype.code;
    throw std::runtime_error("ONNX Runtime is given no " + name);
}

static void check(ort::Status *status) {
    if (status == nullptr) return;
    const std::string message = ort::call<ort::GetErrorMessage>(status);
    ort::call<ort::ReleaseStatus>(status);
    throw std::runtime_error(message);
}

class Session {
   public:
    explicit Session(const char *path) {
        ort::Env *env = nullptr;
        ort::SessionOptions *options = nullptr;
        check(ort::call<ort::CreateEnv>(ort::LOG_ERRORS, "gate", &env));
        check(ort::call<ort::CreateSessionOptions>(&options));
        check(ort::call<ort::SetIntraOpNumThreads>(options, 1));
        check(ort::call<ort::SetInterOpNumThreads>(options, 1));
        check(ort::call<ort::CreateSession>(env, path, options, &session_));
        check(ort::call<ort::GetAllocatorWithDefaultOptions>(&allocator_));
        check(ort::call<ort::CreateCpuMemoryInfo>(ort::DEVICE_ALLOCATOR, ort::DEFAULT_MEMORY,
                                                  &memory_));
        size_t inputs = 0, outputs = 0;
        check(ort::call<ort::SessionGetInputCount>(session_, &inputs));
        check(ort::call<ort::SessionGetOutputCount>(session_, &outputs));
        for (size_t k = 0; k < inputs; ++k)
            inputs_.push_back(declared<ort::SessionGetInputName, ort::SessionGetInputTypeInfo>(k));
        for (size_t k = 0; k < outputs; ++k)
            outputs_.push_back(
                declared<ort::SessionGetOutputName, ort::SessionGetOutputTypeInfo>(k));
    }

    void declare() const {
        frames::write("inputs", inputs_);
        frames::write("outputs", outputs_);
    }

    std::vector<Tensor> run(std::vector<Tensor> &inputs) {
        std::vector<const char *> input_names, output_names;
        std::vector<ort::Value *> values, found(outputs_.size(), nullptr);
        for (auto &input : inputs) {
            input_names.push_back(input.name.c_str());
            values.push_back(wrapped(input));
        }
        for (const auto &output : outputs_) output_names.push_back(output.name.c_str());
        frames::mark(0);
        ort::Status *status =
            ort::call<ort::Run>(session_, nullptr, input_names.data(), values.data(), values.size(),
                                output_names.data(), found.size(), found.data());
        frames::mark(1);
        std::vector<Tensor> outputs;
        for (size_t k = 0; status == nullptr && k < found.size(); ++k)
            outputs.push_back(copied(outputs_[k].name, found[k]));
        for (auto *value : values) ort::call<ort::ReleaseValue>(value);
        for (auto *value : found) ort::call<ort::ReleaseValue>(value);
        check(status);
        return outputs;
    }

   private:
    template <class Name, class Type>
    Tensor declared(size_t index) {
        char *name = nullptr;
        ort::TypeInfo *type = nullptr;
        const ort::ShapeInfo *shape = nullptr;
        check(ort::call<Name>(session_, index, allocator_, &name));
        check(ort::call<Type>(session_, index, &type));
        check(ort::call<ort::CastTypeInfoToTensorInfo>(type, &shape));
        Tensor tensor{name, "", {}, {}};
        fill(tensor, shape);
        ort::call<ort::ReleaseTypeInfo>(type);
        return tensor;
    }

    // Names of axes where the file declares such, sizes elsewhere.
    static void fill(Tensor &tensor, const ort::ShapeInfo *shape) {
        int code = 0;
        size_t rank = 0;
        check(ort::call<ort::GetTensorElementType>(shape, &code));
        check(ort::call<ort::GetDimensionsCount>(shape, &rank));
        std::vector<int64_t> axes(rank);
        std::vector<const char *> names(rank, "");
        check(ort::call<ort::GetDimensions>(shape, axes.data(), rank));
        check(ort::call<ort::GetSymbolicDimensions>(shape, names.data(), rank));
        tensor.dtype = dtype_name(code);
        for (size_t k = 0; k < rank; ++k)
            tensor.axes.push_back(*names[k] ? names[k] : std::to_string(axes[k]));
    }

    ort::Value *wrapped(Tensor &tensor) const {
        ort::Value *value = nullptr;
        const auto shape = frames::sizes(tensor);
        check(ort::call<ort::CreateTensorWithDataAsOrtValue>(
            memory_, tensor.bytes.data(), tensor.bytes.size(), shape.data(), shape.size(),
            dtype_code(tensor.dtype), &value));
        return value;
    }

    static Tensor copied(const std::string &name, ort::Value *value) {
        ort::ShapeInfo *shape = nullptr;
        void *data = nullptr;
        size_t count = 0;
        Tensor tensor{name, "", {}, {}};
        check(ort::call<ort::GetTensorTypeAndShape>(value, &shape));
        fill(tensor, shape);
        check(ort::call<ort::GetTensorShapeElementCount>(shape, &count));
        check(ort::call<ort::GetTensorMutableData>(value, &data));
        ort::call<ort::ReleaseTensorTypeAndShapeInfo>(shape);
        const char *bytes = static_cast<const char *>(data);
        tensor.bytes.assign(bytes, bytes + count * frames::item_bytes(tensor.dtype));
        return tensor;
    }

    ort::Session *session_ = nullptr;
    ort::Allocator *allocator_ = nullptr;
    ort::MemoryInfo *memory_ = nullptr;
    std::vector<Tensor> inputs_, outputs_;
};

int main(int, char **arguments) {
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
