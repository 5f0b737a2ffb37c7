// What ExecuTorch asks about the processor and of the thread pool, for a process without PyTorch.
//
// In the wheel, libtorch_cpu.so answers; it takes 400 MB. The processor is the emulated one: the
// kernel's capability bits, and the part number from /proc/cpuinfo.
#include <cpuinfo.h>
#include <sys/auxv.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>  // makes std::cerr, which the wheel's library leaves to its C++ library to do

extern "C" {

struct cpuinfo_arm_isa cpuinfo_isa;

static cpuinfo_uarch_info uarch;
static cpuinfo_core core;
static cpuinfo_processor processor;

static unsigned part_number() {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    unsigned part = 0;
    while (file != nullptr && fgets(line, sizeof line, file) != nullptr)
        sscanf(line, "CPU part : 0x%x", &part);
    if (file != nullptr) fclose(file);
    return part;
}

static cpuinfo_uarch microarchitecture(unsigned part) {
    switch (part) {
        case 0xd03: return cpuinfo_uarch_cortex_a53;
        case 0xd0b: return cpuinfo_uarch_cortex_a76;
        case 0xd47: return cpuinfo_uarch_cortex_a710;
        default: return cpuinfo_uarch_unknown;
    }
}

bool cpuinfo_initialize(void) {
    const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    const auto has = [](unsigned long word, int bit) { return (word >> bit & 1) != 0; };
    // Bits of Linux's asm/hwcap.h.
    cpuinfo_isa.atomics = has(one, 8);
    cpuinfo_isa.fp16arith = has(one, 9) && has(one, 10);
    cpuinfo_isa.rdm = has(one, 12);
    cpuinfo_isa.dot = has(one, 20);
    cpuinfo_isa.fhm = has(one, 23);
    cpuinfo_isa.i8mm = has(two, 13);
    cpuinfo_isa.bf16 = has(two, 14);
    uarch.uarch = core.uarch = microarchitecture(part_number());
    uarch.processor_count = uarch.core_count = core.processor_count = 1;
    processor.core = &core;
    return true;
}

uint32_t cpuinfo_get_processors_count(void) { return 1; }
uint32_t cpuinfo_get_uarchs_count(void) { return 1; }
const struct cpuinfo_processor *cpuinfo_get_processor(uint32_t) { return &processor; }
const struct cpuinfo_uarch_info *cpuinfo_get_uarch(uint32_t) { return &uarch; }

// A function of PyTorch or Python was called, of which there is only this.
[[noreturn]] void exportgate_missing(const char *name) {
    fprintf(stderr, "the program called %s, which is not part of the emulated process\n", name);
    abort();
}
}
