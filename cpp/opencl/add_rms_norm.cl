// sum = x + residual; out = sum * gamma / sqrt(mean(sum^2) + epsilon) over the last dimension.
//
// A work-group a row; lanes take every 64th column, so that neighbours read neighbours. The plugin has no
// name for "rows" of a tensor of any rank: it launches a work-item a value, rounded up to whole groups, of
// which as many work as there are rows. x and residual are read twice, the second time from the cache.
#define RMS_LANES 64

__kernel __attribute__((reqd_work_group_size(RMS_LANES, 1, 1)))
void ovfast_add_rms_norm(__global const INPUT0_TYPE* x, __global const INPUT1_TYPE* residual,
                         __global const INPUT2_TYPE* gamma, __global OUTPUT0_TYPE* out,
                         __global OUTPUT1_TYPE* sum) {
    const size_t columns = INPUT2_DIMS[0];
    const size_t rows = OVFAST_SIZE(INPUT0) / columns;
    const size_t lane = get_local_id(0);
    __local float parts[RMS_LANES];

    for (size_t row = get_group_id(0); row < rows; row += get_num_groups(0)) {
        float squares = 0.0f;
        for (size_t k = lane; k < columns; k += RMS_LANES) {
            const size_t i = row * columns + k;
            const float value =
                (float)x[OVFAST_AT(INPUT0, i)] + (float)residual[OVFAST_AT(INPUT1, i)];
            squares += value * value;
        }
        parts[lane] = squares;
        for (size_t left = RMS_LANES / 2; left > 0; left /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < left) parts[lane] += parts[lane + left];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        const float mean = parts[0] / (float)columns;
        const float factor = 1.0f / sqrt(mean + OVFAST_FLOAT(EPSILON_BITS));
        for (size_t k = lane; k < columns; k += RMS_LANES) {
            const size_t i = row * columns + k;
            const float value =
                (float)x[OVFAST_AT(INPUT0, i)] + (float)residual[OVFAST_AT(INPUT1, i)];
            sum[OVFAST_AT(OUTPUT1, i)] = (OUTPUT1_TYPE)value;
            out[OVFAST_AT(OUTPUT0, i)] =
                (OUTPUT0_TYPE)(value * factor * (float)gamma[OVFAST_AT(INPUT2, k)]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);  // parts is written again for the next row
    }
}
