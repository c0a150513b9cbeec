// out = silu(alpha * gate) * up, a work-item a value. Everything between loads and store is f32.
__kernel void ovfast_swiglu(__global const INPUT0_TYPE* gate, __global const INPUT1_TYPE* up,
                            __global OUTPUT0_TYPE* out) {
    const size_t i = get_global_id(0);
    const float x = (float)(ALPHA) * (float)gate[i];
    out[i] = (OUTPUT0_TYPE)(x / (1.0f + exp(-x)) * (float)up[i]);
}
