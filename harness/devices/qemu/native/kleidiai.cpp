// The functions of KleidiAI that the ExecuTorch wheel takes from libtorch_cpu.so.
//
// They bring operands into the order in which its matrix products read them. Names and layouts are
// KleidiAI's (kai_*.h of its `matmul/pack`): "qai8dx" are activations in 8 bits with a scale and an
// offset for each row, "qsi4c32" weights in 4 bits with a scale for each block, "qsi4cx" with one for
// each column, "p" means packed. The products are the wheel's own but for two of "qsi4cx", for which
// stand-ins in the same instructions are here: one file's matrices whose inputs 32 does not divide.
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr size_t HALF = 16;  // values of a byte's low half; the high half holds those 16 further on

size_t rounded_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

struct RowScale {
    float to_integer;
    int32_t zero_point;
};

// The range of a row, zero included, is spread over -128 to 127 so that zero is a whole number.
RowScale row_scale(const float *row, size_t k) {
    const auto [low, high] = std::minmax_element(row, row + k);
    const float least = std::min(0.0f, *low), most = std::max(0.0f, *high);
    const float scale = least == most ? 1.0f : 255.0f / (most - least);
    const float low_error = -128.0f + least * scale, high_error = 127.0f + most * scale;
    const float exact =
        low_error + high_error > 0.0f ? -128.0f - least * scale : 127.0f - most * scale;
    return {scale, static_cast<int32_t>(std::rint(std::clamp(exact, -128.0f, 127.0f)))};
}

float from_bf16(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// Weights of n rows (columns of the product) of k codes, two neighbours in a byte.
struct Codes {
    const uint8_t *bytes;
    size_t stride, n, k;
    int zero;  // the code that means 0: 8 of unsigned codes, 0 of signed ones

    // A row beyond the last repeats it, a value beyond a row is 0.
    uint8_t at(size_t row, size_t index) const {
        if (index >= k) return static_cast<uint8_t>(zero);
        return bytes[std::min(row, n - 1) * stride + index / 2] >> index % 2 * 4 & 15;
    }
};

// What a code is worth, once it is signed: 4 bits of two's complement.
int32_t worth(uint8_t nibble) { return (nibble ^ 8) - 8; }

// Packs values from begin to end of nr rows: a byte holds two that are 16 apart, signed; pieces of
// the rows follow each other. `add` is told what the values of each piece add up to.
template <typename Add>
uint8_t *pack_codes(const Codes &codes, size_t first, size_t nr, size_t piece, size_t begin,
                    size_t end, uint8_t *out, Add add) {
    const uint8_t flip = codes.zero == 8 ? 8 : 0;
    for (; begin < end; begin += 2 * HALF)
        for (size_t part = begin; part < begin + HALF; part += piece)
            for (size_t column = 0; column < nr; ++column) {
                int32_t sum = 0;
                for (size_t index = part; index < part + piece; ++index) {
                    const uint8_t low = codes.at(first + column, index) ^ flip;
                    const uint8_t high = codes.at(first + column, index + HALF) ^ flip;
                    *out++ = static_cast<uint8_t>(low | high << 4);
                    sum += worth(low) + worth(high);
                }
                add(column, sum);
            }
    return out;
}

constexpr size_t COLUMNS = 8, PIECE = 8, BLOCK_BYTES = COLUMNS * HALF;

// What stands behind the codes of eight columns, and behind the values of some rows.
struct Columns {
    int32_t sums[COLUMNS];  // 16 times those of the codes
    float scales[COLUMNS];  // a 16th
    float biases[COLUMNS];
};

// Finishes a row of at most eight sums of products with codes that were shifted to the high half.
void finish(const int32_t *products, const Columns &columns, int32_t offset, float scale,
            size_t count, float *out, float least, float most) {
    for (size_t column = 0; column < count; ++column) {
        const int32_t whole = products[column] + offset * columns.sums[column];
        const float value = static_cast<float>(whole) * (columns.scales[column] * scale);
        out[column] = std::clamp(value + columns.biases[column], least, most);
    }
}

// The codes of two columns: first their low halves, then their high ones, each 16 times its worth.
void two_columns(const uint8_t *codes, int8x16_t *low, int8x16_t *high) {
    const uint8x16_t both = vld1q_u8(codes);
    *low = vreinterpretq_s8_u8(vshlq_n_u8(both, 4));
    *high = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(0xf0)));
}

}  // namespace

extern "C" {

// `mr` rows, padded to 32 values, are interleaved in pieces of kr / sr values; behind them stand the
// negated zero points and then the scales of these rows.
void kai_run_lhs_quant_pack_qai8dxp_f32(size_t m, size_t k, size_t mr, size_t kr, size_t sr,
                                        size_t m_idx_start, const float *lhs, size_t lhs_stride,
                                        void *lhs_packed) {
    const size_t piece = kr / sr, padded = rounded_up(k, 2 * HALF);
    const size_t group_bytes = mr * (padded + sizeof(int32_t) + sizeof(float));
    for (size_t row = 0; row < m; ++row) {
        const size_t place = (row + m_idx_start) % mr;
        const size_t group = (row + m_idx_start) / mr - m_idx_start / mr;
        auto *out = static_cast<int8_t *>(lhs_packed) + group * group_bytes;
        const auto *in = reinterpret_cast<const float *>(
            reinterpret_cast<const char *>(lhs) + row * lhs_stride);
        const RowScale scale = row_scale(in, k);
        for (size_t index = 0; index < padded; ++index) {
            const float value = in[std::min(index, k - 1)] * scale.to_integer;
            const int32_t whole = static_cast<int32_t>(std::round(value)) + scale.zero_point;
            out[index / piece * piece * mr + place * piece + index % piece] =
                static_cast<int8_t>(std::clamp(whole, -128, 127));
        }
        auto *offsets = reinterpret_cast<int32_t *>(out + mr * padded);
        offsets[place] = -scale.zero_point;
        reinterpret_cast<float *>(offsets + mr)[place] = 1.0f / scale.to_integer;
    }
}

// Bytes of `nr` packed columns: the blocks with their scales, then a sum and a bias for each column.
size_t kai_get_rhs_packed_stride_rhs_pack_nxk_qsi4c32p_qsu4c32s1s0(size_t k, size_t nr, size_t,
                                                                   size_t, size_t bl, int) {
    return nr * (k / bl * (bl / 2 + sizeof(uint16_t)) + 2 * sizeof(float));
}

// A source byte holds two neighbours, in codes 0 to 15; a packed byte holds two values that are 16
// apart, signed. Columns beyond the last repeat it.
void kai_run_rhs_pack_nxk_qsi4c32p_qsu4c32s1s0(size_t, size_t n, size_t k, size_t nr, size_t kr,
                                               size_t sr, size_t bl, const uint8_t *rhs,
                                               size_t rhs_stride, const float *bias,
                                               const void *scale, size_t scale_stride,
                                               void *rhs_packed, size_t, const void *) {
    const size_t piece = kr / sr, blocks = k / bl;
    auto *out = static_cast<uint8_t *>(rhs_packed);
    for (size_t first = 0; first < n; first += nr) {
        auto *sums = reinterpret_cast<float *>(out + nr * blocks * (bl / 2 + sizeof(uint16_t)));
        std::fill(sums, sums + nr, 0.0f);
        for (size_t block = 0; block < blocks; ++block) {
            auto *scales = reinterpret_cast<uint16_t *>(out + nr * bl / 2);
            for (size_t column = 0; column < nr; ++column) {
                const size_t source = std::min(first + column, n - 1);
                const auto *row_scales = static_cast<const char *>(scale) + source * scale_stride;
                memcpy(scales + column, row_scales + block * sizeof(uint16_t), sizeof(uint16_t));
            }
            const Codes codes{rhs, rhs_stride, n, k, 8};
            out = pack_codes(codes, first, nr, piece, block * bl, (block + 1) * bl, out,
                             [&](size_t column, int32_t sum) {
                                 sums[column] += static_cast<float>(sum) * from_bf16(scales[column]);
                             });
            out += nr * sizeof(uint16_t);
        }
        auto *biases = sums + nr;
        for (size_t column = 0; column < nr; ++column)
            biases[column] = bias == nullptr ? 0.0f : bias[std::min(first + column, n - 1)];
        out = reinterpret_cast<uint8_t *>(biases + nr);
    }
}

struct PackParameters {
    int8_t lhs_zero_point;
    uint8_t rhs_zero_point;
};

// Behind the codes of nr columns stand their sums, scales and biases (Columns).
void kai_run_rhs_pack_nxk_qsi4cxp_qs4cxs1s0(size_t, size_t n, size_t k, size_t nr, size_t kr,
                                            size_t sr, const uint8_t *rhs, const float *bias,
                                            const float *scale, void *rhs_packed, size_t,
                                            const PackParameters *parameters) {
    const Codes codes{rhs, (k + 1) / 2, n, k, parameters->rhs_zero_point};
    const size_t padded = rounded_up(k, 2 * HALF);
    auto *out = static_cast<uint8_t *>(rhs_packed);
    for (size_t first = 0; first < n; first += nr) {
        auto *sums = reinterpret_cast<int32_t *>(out + nr * padded / 2);
        auto *scales = reinterpret_cast<float *>(sums + nr), *biases = scales + nr;
        std::fill(sums, sums + nr, 0);
        pack_codes(codes, first, nr, kr / sr, 0, padded, out,
                   [&](size_t column, int32_t sum) { sums[column] += 16 * sum; });
        for (size_t column = 0; column < nr; ++column) {
            const size_t source = std::min(first + column, n - 1);
            scales[column] = scale[source] / 16;
            biases[column] = bias == nullptr ? 0.0f : bias[source];
        }
        out = reinterpret_cast<uint8_t *>(biases + nr);
    }
}

// One row and eight columns at a time, in dot products.
__attribute__((target("arch=armv8.2-a+dotprod"))) void
kai_run_matmul_clamp_f32_qai8dxp1x8_qsi4cxp8x8_1x8x32_neon_dotprod(
    size_t m, size_t n, size_t k, const void *lhs_packed, const void *rhs_packed, float *dst,
    size_t dst_stride, size_t, float least, float most) {
    const size_t blocks = (k + 2 * HALF - 1) / (2 * HALF);
    const auto *row = static_cast<const int8_t *>(lhs_packed);
    for (size_t y = 0; y < m; ++y) {
        const auto *codes = static_cast<const uint8_t *>(rhs_packed);
        const int8_t *end = row + blocks * 2 * HALF;
        int32_t offset;
        float scale;
        memcpy(&offset, end, sizeof offset);
        memcpy(&scale, end + sizeof offset, sizeof scale);
        auto *out = reinterpret_cast<float *>(reinterpret_cast<char *>(dst) + y * dst_stride);
        for (size_t x = 0; x < n; x += COLUMNS) {
            int32x4_t sums[COLUMNS / 2] = {};
            for (size_t block = 0; block < blocks; ++block, codes += BLOCK_BYTES)
                for (size_t half = 0; half < 2; ++half) {
                    const int8_t *at = row + block * 2 * HALF + half * PIECE;
                    const int8x8_t near = vld1_s8(at), far = vld1_s8(at + HALF);
                    for (size_t pair = 0; pair < COLUMNS / 2; ++pair) {
                        int8x16_t low, high;
                        two_columns(codes + half * BLOCK_BYTES / 2 + pair * 16, &low, &high);
                        sums[pair] = vdotq_s32(sums[pair], low, vcombine_s8(near, near));
                        sums[pair] = vdotq_s32(sums[pair], high, vcombine_s8(far, far));
                    }
                }
            int32_t products[COLUMNS];
            vst1q_s32(products, vpaddq_s32(sums[0], sums[1]));
            vst1q_s32(products + 4, vpaddq_s32(sums[2], sums[3]));
            Columns columns;
            memcpy(&columns, codes, sizeof columns);
            codes += sizeof columns;
            finish(products, columns, offset, scale, std::min(COLUMNS, n - x), out + x, least, most);
        }
        row = end + sizeof offset + sizeof scale;
    }
}

// Groups of four rows and eight columns at a time, in matrix products.
__attribute__((target("arch=armv8.2-a+i8mm"))) void
kai_run_matmul_clamp_f32_qai8dxp4x8_qsi4cxp8x8_8x8x32_neon_i8mm(
    size_t m, size_t n, size_t k, const void *lhs_packed, const void *rhs_packed, float *dst,
    size_t dst_stride, size_t, float least, float most) {
    constexpr size_t ROWS = 4;
    const size_t blocks = (k + 2 * HALF - 1) / (2 * HALF);
    const auto *rows = static_cast<const int8_t *>(lhs_packed);
    for (size_t y = 0; y < m; y += ROWS) {
        const auto *codes = static_cast<const uint8_t *>(rhs_packed);
        const int8_t *end = rows + blocks * 2 * HALF * ROWS;
        int32_t offsets[ROWS];
        float scales[ROWS];
        memcpy(offsets, end, sizeof offsets);
        memcpy(scales, end + sizeof offsets, sizeof scales);
        for (size_t x = 0; x < n; x += COLUMNS) {
            int32x4_t sums[ROWS / 2][COLUMNS / 2] = {};
            for (size_t block = 0; block < blocks; ++block, codes += BLOCK_BYTES)
                for (size_t half = 0; half < 2; ++half)
                    for (size_t pair = 0; pair < COLUMNS / 2; ++pair) {
                        int8x16_t low, high;
                        two_columns(codes + half * BLOCK_BYTES / 2 + pair * 16, &low, &high);
                        for (size_t two = 0; two < ROWS / 2; ++two) {
                            const int8_t *at =
                                rows + (block * 4 + half) * PIECE * ROWS + two * 2 * PIECE;
                            int32x4_t &sum = sums[two][pair];
                            sum = vmmlaq_s32(sum, vld1q_s8(at), low);
                            sum = vmmlaq_s32(sum, vld1q_s8(at + 2 * PIECE * ROWS), high);
                        }
                    }
            Columns columns;
            memcpy(&columns, codes, sizeof columns);
            codes += sizeof columns;
            for (size_t place = 0; place < std::min(ROWS, m - y); ++place) {
                int32_t products[COLUMNS];
                for (size_t pair = 0; pair < COLUMNS / 2; ++pair) {
                    const int32x4_t sum = sums[place / 2][pair];
                    vst1_s32(products + 2 * pair,
                             place % 2 ? vget_high_s32(sum) : vget_low_s32(sum));
                }
                auto *out = reinterpret_cast<char *>(dst) + (y + place) * dst_stride;
                finish(products, columns, offsets[place], scales[place], std::min(COLUMNS, n - x),
                       reinterpret_cast<float *>(out) + x, least, most);
            }
        }
        rows = end + sizeof offsets + sizeof scales;
    }
}
}
