// sum = x + residual; out = sum * gamma / sqrt(mean(sum^2) + epsilon) over the last dimension.
//
// A work-group a row; lanes take every LANES-th column, so that neighbours read neighbours. The plugin
// has no name for "rows" of a tensor of any rank: it launches a work-item a value, rounded up to whole
// groups, of which as many work as there are rows. What x and residual hold is read twice, the second
// time from the cache.
#define LANES 64

__kernel __attribute__((reqd_work_group_size(LANES, 1, 1)))
void ovfast_add_rms_norm(__global const INPUT0_TYPE* x, __global const INPUT1_TYPE* residual,
                         __global const INPUT2_TYPE* gamma, __global OUTPUT0_TYPE* out,
                         __global OUTPUT1_TYPE* sum) {
    const size_t columns = INPUT2_DIMS[0];
    const size_t rows = (INPUT0_DIMS[0] * INPUT0_DIMS[1] * INPUT0_DIMS[2] * INPUT0_DIMS[3]) / columns;
    const size_t lane = get_local_id(0);
    __local float parts[LANES];

    for (size_t row = get_group_id(0); row < rows; row += get_num_groups(0)) {
        const size_t first = row * columns;
        float squares = 0.0f;
        for (size_t k = lane; k < columns; k += LANES) {
            const float value = (float)x[first + k] + (float)residual[first + k];
            squares += value * value;
        }
        parts[lane] = squares;
        for (size_t half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < half_lanes) parts[lane] += parts[lane + half_lanes];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        const float factor = 1.0f / sqrt(parts[0] / (float)columns + (float)(EPSILON));
        for (size_t k = lane; k < columns; k += LANES) {
            const float value = (float)x[first + k] + (float)residual[first + k];
            sum[first + k] = (OUTPUT1_TYPE)value;
            out[first + k] = (OUTPUT0_TYPE)(value * factor * (float)gamma[k]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);  // parts is written again for the next row
    }
}
