// Three functions of KleidiAI that the ExecuTorch wheel takes from libtorch_cpu.so.
//
// They bring operands into the order in which its matrix products read them; the products are the
// wheel's own. Names and layouts are KleidiAI's (kai_*.h of its `matmul/pack`): "qai8dx" are
// activations in 8 bits with a scale and an offset for each row, "qsi4c32" weights in 4 bits with a
// scale for each block, "p" means packed. Files that need others of its functions stop at once, by
// name (exportgate_missing).
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
            for (size_t begin = block * bl; begin < (block + 1) * bl; begin += 2 * HALF)
                for (size_t part = 0; part < HALF; part += piece)
                    for (size_t column = 0; column < nr; ++column) {
                        const uint8_t *row = rhs + std::min(first + column, n - 1) * rhs_stride;
                        int32_t sum = 0;
                        for (size_t index = begin + part; index < begin + part + piece; ++index) {
                            const int shift = index % 2 * 4;
                            const uint8_t low = row[index / 2] >> shift & 15;
                            const uint8_t high = row[(index + HALF) / 2] >> shift & 15;
                            *out++ = static_cast<uint8_t>((low | high << 4) ^ 0x88);
                            sum += low + high - 16;
                        }
                        sums[column] += static_cast<float>(sum) * from_bf16(scales[column]);
                    }
            out += nr * sizeof(uint16_t);
        }
        auto *biases = sums + nr;
        for (size_t column = 0; column < nr; ++column)
            biases[column] = bias == nullptr ? 0.0f : bias[std::min(first + column, n - 1)];
        out = reinterpret_cast<uint8_t *>(biases + nr);
    }
}
}
