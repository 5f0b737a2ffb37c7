// ONNX Runtime's C interface, as far as run_onnx.cpp calls it.
//
// The wheel brings the library and no header. Its functions stand in a table to which each version
// only appends (OrtGetApiBase is the one symbol), so a place in it stays what it is. What is called
// here has been in the table since version 1; a place is a struct with its number and its type.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ort {

struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct Allocator;
struct MemoryInfo;
struct TypeInfo;
struct ShapeInfo;
struct Value;

constexpr uint32_t API_VERSION = 1;
constexpr int LOG_ERRORS = 3;
constexpr int DEVICE_ALLOCATOR = 0;
constexpr int DEFAULT_MEMORY = 0;

struct ApiBase {
    void *const *(*table)(uint32_t version);
    const char *(*version)();
};
extern "C" const ApiBase *OrtGetApiBase();

template <size_t PLACE, class TYPE>
struct Function {
    static constexpr size_t place = PLACE;
    using Type = TYPE;
};

#define ORT_FUNCTION(name, place, result, ...) \
    struct name : Function<place, result (*)(__VA_ARGS__)> {};

ORT_FUNCTION(GetErrorMessage, 2, const char *, const Status *)
ORT_FUNCTION(CreateEnv, 3, Status *, int, const char *, Env **)
ORT_FUNCTION(CreateSession, 7, Status *, const Env *, const char *, const SessionOptions *,
             Session **)
ORT_FUNCTION(Run, 9, Status *, Session *, const void *, const char *const *, const Value *const *,
             size_t, const char *const *, size_t, Value **)
ORT_FUNCTION(CreateSessionOptions, 10, Status *, SessionOptions **)
ORT_FUNCTION(SetIntraOpNumThreads, 24, Status *, SessionOptions *, int)
ORT_FUNCTION(SetInterOpNumThreads, 25, Status *, SessionOptions *, int)
ORT_FUNCTION(SessionGetInputCount, 30, Status *, const Session *, size_t *)
ORT_FUNCTION(SessionGetOutputCount, 31, Status *, const Session *, size_t *)
ORT_FUNCTION(SessionGetInputTypeInfo, 33, Status *, const Session *, size_t, TypeInfo **)
ORT_FUNCTION(SessionGetOutputTypeInfo, 34, Status *, const Session *, size_t, TypeInfo **)
ORT_FUNCTION(SessionGetInputName, 36, Status *, const Session *, size_t, Allocator *, char **)
ORT_FUNCTION(SessionGetOutputName, 37, Status *, const Session *, size_t, Allocator *, char **)
ORT_FUNCTION(CreateTensorWithDataAsOrtValue, 49, Status *, const MemoryInfo *, void *, size_t,
             const int64_t *, size_t, int, Value **)
ORT_FUNCTION(GetTensorMutableData, 51, Status *, Value *, void **)
ORT_FUNCTION(CastTypeInfoToTensorInfo, 55, Status *, const TypeInfo *, const ShapeInfo **)
ORT_FUNCTION(GetTensorElementType, 60, Status *, const ShapeInfo *, int *)
ORT_FUNCTION(GetDimensionsCount, 61, Status *, const ShapeInfo *, size_t *)
ORT_FUNCTION(GetDimensions, 62, Status *, const ShapeInfo *, int64_t *, size_t)
ORT_FUNCTION(GetSymbolicDimensions, 63, Status *, const ShapeInfo *, const char **, size_t)
ORT_FUNCTION(GetTensorShapeElementCount, 64, Status *, const ShapeInfo *, size_t *)
ORT_FUNCTION(GetTensorTypeAndShape, 65, Status *, const Value *, ShapeInfo **)
ORT_FUNCTION(CreateCpuMemoryInfo, 69, Status *, int, int, MemoryInfo **)
ORT_FUNCTION(GetAllocatorWithDefaultOptions, 78, Status *, Allocator **)
ORT_FUNCTION(ReleaseStatus, 93, void, Status *)
ORT_FUNCTION(ReleaseValue, 96, void, Value *)
ORT_FUNCTION(ReleaseTypeInfo, 98, void, TypeInfo *)
ORT_FUNCTION(ReleaseTensorTypeAndShapeInfo, 99, void, ShapeInfo *)

#undef ORT_FUNCTION

template <class FUNCTION, class... ARGUMENTS>
auto call(ARGUMENTS... arguments) {
    static void *const *const table = OrtGetApiBase()->table(API_VERSION);
    return reinterpret_cast<typename FUNCTION::Type>(table[FUNCTION::place])(arguments...);
}

}  // namespace ort
