// y = x W^T with W[n][k] = (code[n][k] - 8) * scale[n][k / GROUP]; codes two a byte, the even column in
// the low bits. For few rows of x, where reading W is what costs.
//
// A sub-group of 16 a row of W and up to BATCH rows of x: W is read once for all of them. Each lane takes
// 4 codes of every 64, so a sub-group reads 32 bytes in a row. The plugin has no name for "columns of the
// output": it launches a sub-group a value of y, of which every BATCH-th row works.
#define LANES 16
#define BATCH 8

__kernel __attribute__((reqd_work_group_size(LANES, 1, 1)))
__attribute__((intel_reqd_sub_group_size(LANES)))
void ovfast_int4_matmul(__global const INPUT0_TYPE* x, __global const uchar* codes,
                        __global const INPUT2_TYPE* scales, __global OUTPUT0_TYPE* y) {
    const size_t rows = INPUT1_DIMS[0];
    const size_t bytes = INPUT1_DIMS[1];  // of a row of codes
    const size_t columns = 2 * bytes;
    const size_t batch = (INPUT0_DIMS[0] * INPUT0_DIMS[1] * INPUT0_DIMS[2] * INPUT0_DIMS[3]) / columns;
    const size_t n = get_group_id(0) % rows;
    const size_t first = get_group_id(0) / rows;
    if (first >= batch || first % BATCH != 0) return;  // the whole sub-group alike
    const size_t count = min((size_t)BATCH, batch - first);
    const size_t lane = get_sub_group_local_id();

    float sums[BATCH] = {0.0f};
    for (size_t byte = 2 * lane; byte < bytes; byte += 2 * LANES) {
        const uchar2 pair = vload2(0, codes + n * bytes + byte);
        const size_t k = 2 * byte;
        const float scale = (float)scales[n * (columns / GROUP) + k / GROUP];
        const float4 weights = scale * (convert_float4((uchar4)(pair.x & 15, pair.x >> 4,
                                                                pair.y & 15, pair.y >> 4)) - 8.0f);
        for (size_t m = 0; m < count; ++m) {
            __global const INPUT0_TYPE* at = x + (first + m) * columns + k;
            const float4 values = (float4)((float)at[0], (float)at[1], (float)at[2], (float)at[3]);
            sums[m] += dot(weights, values);
        }
    }
    for (size_t m = 0; m < count; ++m) {
        const float sum = sub_group_reduce_add(sums[m]);
        if (lane == 0) y[(first + m) * rows + n] = (OUTPUT0_TYPE)sum;
    }
}
