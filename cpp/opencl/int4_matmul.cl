// y = x W^T with W[n][k] = (code[n][k] - 8) * scale[n][k / GROUP]; codes two a byte, the even column in
// the low bits. For few rows of x, where reading W is what costs.
//
// A sub-group of 16 a row of W and up to INT4_BATCH rows of x: W is read once for all of them. A lane takes
// 4 codes of every 64, so a sub-group reads 32 bytes side by side. The plugin has no name for "columns of
// the output": it launches a sub-group a value of y, of which those of every INT4_BATCH-th row work.
#define INT4_LANES 16
#define INT4_BATCH 8

__kernel __attribute__((reqd_work_group_size(INT4_LANES, 1, 1)))
__attribute__((intel_reqd_sub_group_size(INT4_LANES)))
void ovfast_int4_matmul(__global const INPUT0_TYPE* x, __global const uchar* codes,
                        __global const INPUT2_TYPE* scales, __global OUTPUT0_TYPE* y) {
    const size_t rows = INPUT1_DIMS[0];
    const size_t bytes = INPUT1_DIMS[1];  // of a row of codes
    const size_t columns = 2 * bytes;
    const size_t batch = OVFAST_SIZE(INPUT0) / columns;
    const size_t n = get_group_id(0) % rows;
    const size_t first = get_group_id(0) / rows;
    if (first >= batch || first % INT4_BATCH != 0) return;  // the whole sub-group alike
    const size_t count = min((size_t)INT4_BATCH, batch - first);
    const size_t lane = get_sub_group_local_id();

    float sums[INT4_BATCH];
    for (size_t m = 0; m < INT4_BATCH; ++m) sums[m] = 0.0f;
    for (size_t byte = 2 * lane; byte < bytes; byte += 2 * INT4_LANES) {
        const uchar2 pair = vload2(0, codes + INPUT1_OFFSET + n * INPUT1_PITCHES[0] + byte);
        const size_t k = 2 * byte;
        const float scale = (float)scales[OVFAST_AT(INPUT2, n * (columns / GROUP) + k / GROUP)];
        const uchar4 of_pair = (uchar4)(pair.x & 15, pair.x >> 4, pair.y & 15, pair.y >> 4);
        const float4 weights = scale * (convert_float4(of_pair) - 8.0f);
        for (size_t m = 0; m < count; ++m) {
            const size_t i = (first + m) * columns + k;
            const float4 values =
                (float4)((float)x[OVFAST_AT(INPUT0, i)], (float)x[OVFAST_AT(INPUT0, i + 1)],
                         (float)x[OVFAST_AT(INPUT0, i + 2)], (float)x[OVFAST_AT(INPUT0, i + 3)]);
            sums[m] += dot(weights, values);
        }
    }
    for (size_t m = 0; m < count; ++m) {
        const float sum = sub_group_reduce_add(sums[m]);
        if (lane == 0) y[OVFAST_AT(OUTPUT0, (first + m) * rows + n)] = (OUTPUT0_TYPE)sum;
    }
}
