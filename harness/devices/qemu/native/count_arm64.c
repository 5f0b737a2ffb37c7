/* Count what an arm64 guest executes between two markers, by class: a TCG plugin for QEMU user mode.
 *
 * A guest marks with syscall(9999, k), which no kernel has: 0 begins, 1 ends. At the end the plugin
 * writes a line to standard error: "EXACT instructions=<n> dot=<n> ...". Which kernels ran is told
 * by their instructions: a dot product multiplies 16 pairs of bytes, a matrix product 32.
 * Debian's qemu-user loads plugins, but ships no header: the few declarations of interface version
 * 1 (QEMU 4.2 and later) stand here. Blocks are counted when they are entered.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define MARKER 9999
#define INLINE_ADD_U64 0

typedef uint64_t plugin_id;
struct block;
struct instruction;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern const void *qemu_plugin_insn_data(const struct instruction *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t));

EXPORTED int qemu_plugin_version = 1;

/* Encodings of the Arm Architecture Reference Manual, "Advanced SIMD": masked bits, their value.
 * The first row that fits counts; `by element` forms have their own encoding. */
enum { INSTRUCTIONS, DOT, MATRIX, WIDENING, FMLA32, FMLA16, SCALABLE, CLASSES };
static const char *const NAMES[CLASSES] = {"instructions", "dot",    "matrix",  "widening",
                                           "fmla32",       "fmla16", "scalable"};
static const struct {
    uint32_t mask, value;
    int class;
} ENCODINGS[] = {
    {0x9FE0FC00, 0x0E809400, DOT},      /* SDOT */
    {0xBFE0FC00, 0x2E809400, DOT},      /* UDOT */
    {0xBFE0FC00, 0x0E809C00, DOT},      /* USDOT */
    {0x9FC0F400, 0x0F80E000, DOT},      /* SDOT, UDOT by element */
    {0xBF40F400, 0x0F00F000, DOT},      /* SUDOT, USDOT by element */
    {0xFFE0FC00, 0x4E80A400, MATRIX},   /* SMMLA */
    {0xFFE0FC00, 0x6E80A400, MATRIX},   /* UMMLA */
    {0xFFE0FC00, 0x4E80AC00, MATRIX},   /* USMMLA */
    {0x9F20FC00, 0x0E208000, WIDENING}, /* SMLAL, UMLAL */
    {0x9F20FC00, 0x0E20C000, WIDENING}, /* SMULL, UMULL */
    {0x9F00F400, 0x0F002000, WIDENING}, /* SMLAL, UMLAL by element */
    {0x9F00F400, 0x0F00A000, WIDENING}, /* SMULL, UMULL by element */
    {0xBFA0FC00, 0x0E20CC00, FMLA32},   /* FMLA */
    {0xBF80F400, 0x0F801000, FMLA32},   /* FMLA by element */
    {0xBFE0FC00, 0x0E400C00, FMLA16},   /* FMLA, halves */
    {0xBFC0F400, 0x0F001000, FMLA16},   /* FMLA by element, halves */
    {0x1E000000, 0x04000000, SCALABLE}, /* SVE, all of it */
};

static uint64_t counted[CLASSES], at_marker[CLASSES];

static void on_translate(plugin_id id, struct block *block) {
    (void)id;
    uint64_t found[CLASSES] = {qemu_plugin_tb_n_insns(block)};
    for (size_t k = 0; k < found[INSTRUCTIONS]; ++k) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, k)), sizeof word);
        for (size_t row = 0; row < sizeof ENCODINGS / sizeof *ENCODINGS; ++row)
            if ((word & ENCODINGS[row].mask) == ENCODINGS[row].value) {
                ++found[ENCODINGS[row].class];
                break;
            }
    }
    for (int class = 0; class < CLASSES; ++class)
        if (found[class])
            qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &counted[class],
                                                     found[class]);
}

static void on_syscall(plugin_id id, unsigned vcpu, int64_t number, uint64_t marker, uint64_t b,
                       uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)vcpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != MARKER)
        return;
    if (marker == 1) {
        fprintf(stderr, "EXACT");
        for (int class = 0; class < CLASSES; ++class)
            fprintf(stderr, " %s=%" PRIu64, NAMES[class], counted[class] - at_marker[class]);
        fprintf(stderr, "\n");
    }
    memcpy(at_marker, counted, sizeof counted);
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
